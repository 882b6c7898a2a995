//! What to type next: the crates beneath say what is wrong, and know no command line.

use images::{
    archive::ArchiveError,
    import::ImportError,
    registry::{PullError, Reason},
    store::StoreError,
};

/// The next step after an error, if this program offers one.
pub(super) fn next_step(error: &anyhow::Error) -> Option<String> {
    error.chain().find_map(after)
}

fn after(cause: &(dyn std::error::Error + 'static)) -> Option<String> {
    if let Some(error) = cause.downcast_ref::<StoreError>() {
        return after_store(error).map(str::to_owned);
    }
    if let Some(PullError { reason, .. }) = cause.downcast_ref() {
        let step = match &**reason {
            Reason::Store(error) => after_store(error),
            Reason::Unauthorized { had_credentials: false, .. } | Reason::NoToken { had_credentials: false, .. } => {
                Some("log in: `amphora pull --creds USER:PASSWORD`, or `docker login`")
            }
            _ => None,
        };
        return step.map(str::to_owned);
    }
    if let Some(ArchiveError::Unknown { archive }) = cause.downcast_ref() {
        let file = if archive.contains(' ') { "FILE" } else { archive };
        return Some(format!("the archive of a root file system is imported with `amphora import {file} NAME`"));
    }
    if let Some(ImportError::Unknown { file, .. }) = cause.downcast_ref() {
        let file = if file.contains(' ') { "FILE" } else { file };
        return Some(format!("an archive of images is loaded with `amphora load -i {file}`"));
    }
    None
}

fn after_store(error: &StoreError) -> Option<&'static str> {
    match error {
        StoreError::IndexDamaged { .. } => {
            Some("`amphora system repair` makes it anew; until then no image is found, and none is removed")
        }
        StoreError::Full { .. } => Some("`amphora system prune` removes what no image or container needs"),
        StoreError::NotFound { .. } => Some("`amphora images` lists what there is"),
        StoreError::SeveralNames { .. } => Some("`--force` removes all of them"),
        StoreError::InUse { .. } => Some("`--force` removes only the name"),
        StoreError::Altered { .. } => {
            Some("remove the image that needs it with `amphora rmi`, and pull or load it again")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn a_step_is_found_through_all_that_wraps_an_error() {
        let full = || StoreError::Full { path: "/x".into(), source: std::io::ErrorKind::StorageFull.into() };
        let steps = [
            next_step(&full().into()),
            next_step(&Err::<(), _>(full()).context("more").unwrap_err()),
            next_step(&ArchiveError::from(full()).into()),
            next_step(&ImportError::from(full()).into()),
        ];
        for step in steps {
            assert!(step.is_some_and(|step| step.contains("system prune")));
        }
        assert_eq!(next_step(&anyhow::anyhow!("another")), None);
    }
}
