//! Where a container's group lies.

use super::{CgroupError, PARENT};
use std::path::{Path, PathBuf};

/// A group's place, the same in each hierarchy.
///
/// There are no links in a cgroup file system, and no `..` in a place, so it is below where it begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// From the hierarchy's top, and not from where this user's groups may lie.
    absolute: bool,
    parents: PathBuf,
    name: String,
}

impl Place {
    /// Our default one, `amphora/ID`.
    pub fn of_container(id: &str) -> Result<Self, CgroupError> {
        let fits = !id.starts_with('.') && is_component(id);
        let place = || Self { absolute: false, parents: PARENT.into(), name: id.to_owned() };
        fits.then(place).ok_or_else(|| CgroupError::Id(id.to_owned()))
    }

    /// From the runtime-spec's `linux.cgroupsPath`, with directories as names: an absolute one begins at each hierarchy's top, another
    /// where this user's groups may lie (on v1 the same). Empty components and `.` count for nothing.
    ///
    /// # Errors
    /// It names nothing, has a `..`, or is of systemd's form (`slice:prefix:name`).
    pub fn parse(cgroups_path: &str) -> Result<Self, CgroupError> {
        let refused = || CgroupError::Place(cgroups_path.to_owned());
        let mut parts: Vec<&str> = cgroups_path.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
        let fits = parts.iter().all(|part| *part != ".." && is_component(part)) && !is_systemds(cgroups_path);
        let name = parts.pop().filter(|_| fits).ok_or_else(refused)?;
        Ok(Self { absolute: cgroups_path.starts_with('/'), parents: parts.iter().collect(), name: name.to_owned() })
    }

    /// Its last component.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn is_absolute(&self) -> bool {
        self.absolute
    }

    /// Whether it is [`Self::of_container`].
    pub(super) fn is_default(&self) -> bool {
        !self.absolute && self.parents == Path::new(PARENT)
    }

    pub(super) fn path(&self, top: &Path) -> PathBuf {
        self.parent(top).join(&self.name)
    }

    pub(super) fn parent(&self, top: &Path) -> PathBuf {
        top.join(&self.parents)
    }

    /// All that it lies in below `top`, the outermost first; they may not exist yet.
    pub(super) fn parents(&self, top: &Path) -> Vec<PathBuf> {
        let mut path = top.to_owned();
        self.parents
            .iter()
            .map(|part| {
                path.push(part);
                path.clone()
            })
            .collect()
    }
}

fn is_component(text: &str) -> bool {
    !text.is_empty() && text.len() <= 255 && !text.contains(['/', '\n', '\0'])
}

/// Two colons and no slash: that is for systemd to make.
fn is_systemds(path: &str) -> bool {
    !path.contains('/') && path.split(':').count() == 3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_below_where_they_begin() {
        for (text, parents, path) in [
            ("/a/b/c", &["/top/a", "/top/a/b"][..], "/top/a/b/c"),
            ("a", &[], "/top/a"),
            ("//a/./b/", &["/top/a"], "/top/a/b"),
            ("a/...", &["/top/a"], "/top/a/..."),
        ] {
            let place = Place::parse(text).unwrap();
            let found: Vec<PathBuf> = place.parents(Path::new("/top"));
            assert_eq!(found, parents.iter().map(PathBuf::from).collect::<Vec<_>>(), "{text}");
            assert_eq!(place.path(Path::new("/top")), Path::new(path), "{text}");
            assert_eq!((place.is_absolute(), place.is_default()), (text.starts_with('/'), false), "{text}");
        }
        for text in ["", "/", "..", "/a/../b", "a/..", ".", "a\nb", "system.slice:runc:1", &"x".repeat(256)] {
            assert!(matches!(Place::parse(text), Err(CgroupError::Place(_))), "{text}");
        }
        assert_eq!(Place::parse("amphora/1").unwrap(), Place::of_container("1").unwrap());
    }
}
