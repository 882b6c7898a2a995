//! `import --change`: settings of the new image, in the words of a Dockerfile.

use anyhow::{Context, Result, bail};
use images::import::Changes;

/// Parses all of them; each instruction that names one value replaces an earlier one.
pub(crate) fn parse(texts: &[String]) -> Result<Changes> {
    let mut changes = Changes::default();
    for text in texts {
        apply(&mut changes, text).with_context(|| format!("cannot use --change '{text}'"))?;
    }
    Ok(changes)
}

fn apply(changes: &mut Changes, text: &str) -> Result<()> {
    let (instruction, value) = text.trim().split_once(char::is_whitespace).unwrap_or((text, ""));
    let value = value.trim();
    if value.is_empty() {
        bail!("expected an instruction and a value, such as CMD [\"/bin/sh\"]");
    }
    match instruction.to_ascii_uppercase().as_str() {
        "CMD" => changes.cmd = Some(words(value)?),
        "ENTRYPOINT" => changes.entrypoint = Some(words(value)?),
        "WORKDIR" => changes.workdir = Some(value.to_owned()),
        "USER" => changes.user = Some(value.to_owned()),
        "ENV" => {
            let (name, value) = pair(value)?;
            changes.env.push(format!("{name}={value}"));
        }
        "LABEL" => changes.labels.push(pair(value)?),
        "EXPOSE" => {
            for port in value.split_whitespace() {
                changes.exposed_ports.push(exposed(port)?);
            }
        }
        "VOLUME" if value.starts_with('[') => changes.volumes.extend(words(value)?),
        "VOLUME" => changes.volumes.extend(value.split_whitespace().map(str::to_owned)),
        _ => bail!("{instruction}: expected CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, USER, VOLUME or WORKDIR"),
    }
    Ok(())
}

/// `80`, `80/udp` or `80-82/tcp`, with the protocol.
fn exposed(port: &str) -> Result<String> {
    let (ports, protocol) = port.split_once('/').unwrap_or((port, "tcp"));
    let is_port = |text: &str| text.parse::<u16>().is_ok_and(|port| port > 0);
    let is_known = ["tcp", "udp", "sctp"].contains(&protocol);
    if !is_known || !ports.split('-').all(is_port) || ports.matches('-').count() > 1 {
        bail!("{port}: expected a port such as 80 or 53/udp");
    }
    Ok(format!("{ports}/{protocol}"))
}

/// A JSON array, or a command for the shell.
fn words(value: &str) -> Result<Vec<String>> {
    if value.starts_with('[') {
        return serde_json::from_str(value).context("expected an array of strings");
    }
    Ok(vec!["/bin/sh".to_owned(), "-c".to_owned(), value.to_owned()])
}

/// `NAME=value` or `NAME value`.
fn pair(value: &str) -> Result<(String, String)> {
    let split = value.split_once('=').or_else(|| value.split_once(' '));
    let (name, value) = split.context("expected NAME=VALUE")?;
    Ok((name.to_owned(), value.trim_matches('"').to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(texts: &[&str]) -> Result<Changes> {
        parse(&texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn dockerfile_words() {
        let changes =
            parsed(&[r#"CMD ["a", "b c"]"#, "entrypoint run me", "ENV A=b=c", "LABEL x \"y\"", "USER nobody"])
                .expect("valid");
        assert_eq!(changes.cmd, Some(vec!["a".to_owned(), "b c".to_owned()]));
        assert_eq!(changes.entrypoint.expect("set")[2], "run me");
        assert_eq!(changes.env, ["A=b=c"]);
        assert_eq!(changes.labels, [("x".to_owned(), "y".to_owned())]);
        assert_eq!(changes.user.as_deref(), Some("nobody"));
        let changes = parsed(&["EXPOSE 80 53/udp", "VOLUME /a /b", "VOLUME [\"/c d\"]"]).expect("valid");
        assert_eq!(changes.exposed_ports, ["80/tcp", "53/udp"]);
        assert_eq!(changes.volumes, ["/a", "/b", "/c d"]);
    }

    #[test]
    fn what_is_no_instruction_is_named() {
        for text in ["RUN x", "CMD", "CMD [1]", "ENV x", "EXPOSE http", "EXPOSE 80/x", "EXPOSE 1-2-3"] {
            let error = format!("{:#}", parsed(&[text]).expect_err(text));
            assert!(error.contains(text), "{error}");
        }
    }
}
