//! What lies in the model directory: file names and stamps, grouped into models. Nothing is opened here.
//!
//! A walk only proposes. Whether a path really stays inside the directory is decided when the file is opened, by [`weights::Weights::open_beneath`]; until then a link that leads out has cost
//! one `stat`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, Metadata},
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use crate::id::{ModelId, Named, Part};

/// Directories may nest this deep; links could go round in circles otherwise.
const DEPTH_MAX: usize = 16;
/// Directory entries looked at in one walk. Whoever has more has pointed us at something that is no model directory.
const ENTRIES_MAX: usize = 200_000;

/// What tells one content of a file from another without opening it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Stamp {
    dev: u64,
    ino: u64,
    size: u64,
    mtime: (i64, i64),
    ctime: (i64, i64),
}

/// A file that is named like a model.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct SeenFile {
    /// Path below the model directory.
    pub path: PathBuf,
    /// `None` if it cannot be looked at, such as a link that leads nowhere.
    pub stamp: Option<Stamp>,
    /// It is a directory.
    pub directory: bool,
}

/// Files that make up one model, in order.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Found {
    /// The files; the first is the one to open.
    pub files: Vec<SeenFile>,
    /// Why it is not worth opening.
    pub flaw: Option<String>,
}

/// The result of a walk.
#[derive(Debug)]
pub(crate) struct Scan {
    /// Models by id, or by the text that would have been one.
    pub found: BTreeMap<String, Found>,
    /// Every directory that was read.
    pub directories: BTreeSet<PathBuf>,
}

/// Why a walk was given up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ScanError {
    /// The model directory itself cannot be read.
    #[error("reading {}: {source}", path.display())]
    Root {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There is no end to it.
    #[error("{} holds more than {ENTRIES_MAX} entries", path.display())]
    TooMany {
        /// The directory.
        path: PathBuf,
    },
}

/// Walks the model directory. `on_enter` hears of each directory before it is read, so that a watch set there misses nothing.
pub(crate) fn scan(root: &Path, on_enter: &mut dyn FnMut(&Path)) -> Result<Scan, ScanError> {
    let root_error = |source| ScanError::Root {
        path: root.to_owned(),
        source,
    };
    let real_root = fs::canonicalize(root).map_err(root_error)?;
    let mut walk = Walk {
        root,
        real_root: real_root.clone(),
        on_enter,
        files: Vec::new(),
        directories: BTreeSet::new(),
        entries: 0,
    };
    walk.directory(Path::new(""), &mut vec![real_root])
        .map_err(root_error)?;
    if walk.entries > ENTRIES_MAX {
        return Err(ScanError::TooMany {
            path: root.to_owned(),
        });
    }
    Ok(Scan {
        found: group(walk.files),
        directories: walk.directories,
    })
}

/// Whether the files are as they were when they were listed.
pub(crate) fn unchanged(root: &Path, files: &[SeenFile]) -> bool {
    files
        .iter()
        .all(|file| SeenFile::look(root, &file.path) == *file)
}

/// Whether a file was written to where it lies. One that was put in its place is another file: whoever has the old one open loses nothing.
pub(crate) fn overwritten(root: &Path, files: &[SeenFile]) -> bool {
    files.iter().any(
        |file| match (file.stamp, SeenFile::look(root, &file.path).stamp) {
            (Some(was), Some(is)) => {
                (was.dev, was.ino) == (is.dev, is.ino)
                    && (was.size, was.mtime) != (is.size, is.mtime)
            }
            _ => false,
        },
    )
}

struct Walk<'a> {
    root: &'a Path,
    real_root: PathBuf,
    on_enter: &'a mut dyn FnMut(&Path),
    files: Vec<SeenFile>,
    directories: BTreeSet<PathBuf>,
    entries: usize,
}

// === impl Walk ===

impl Walk<'_> {
    /// Reads one directory and those below. `above` are the real paths of the directories that led here, this one included.
    fn directory(&mut self, relative: &Path, above: &mut Vec<PathBuf>) -> io::Result<()> {
        let path = self.root.join(relative);
        (self.on_enter)(&path);
        let entries = fs::read_dir(&path)?;
        self.directories.insert(path);
        for entry in entries.flatten() {
            self.entries += 1;
            if self.entries > ENTRIES_MAX {
                return Ok(());
            }
            let relative = relative.join(entry.file_name());
            if Named::from_path(&relative).is_some() {
                self.files.push(SeenFile::look(self.root, &relative));
            } else if above.len() <= DEPTH_MAX
                && let Some(real) = self.subdirectory(&relative, above)
            {
                above.push(real);
                // One that cannot be read, or is gone again, holds nothing to list.
                if let Err(error) = self.directory(&relative, above) {
                    tracing::debug!(path = %relative.display(), %error, "directory not read");
                }
                above.pop();
            }
        }
        Ok(())
    }

    /// The real path of a directory that may be entered: one that lies inside the model directory and does not lead back up.
    fn subdirectory(&self, relative: &Path, above: &[PathBuf]) -> Option<PathBuf> {
        let path = self.root.join(relative);
        fs::metadata(&path).ok().filter(Metadata::is_dir)?;
        let real = fs::canonicalize(&path).ok()?;
        let allowed = real.starts_with(&self.real_root) && !above.contains(&real);
        if !allowed {
            tracing::debug!(path = %relative.display(), "link to a directory not followed");
        }
        allowed.then_some(real)
    }
}

// === impl SeenFile ===

impl SeenFile {
    /// Looks at a file, following links.
    fn look(root: &Path, relative: &Path) -> SeenFile {
        let meta = fs::metadata(root.join(relative)).ok();
        SeenFile {
            path: relative.to_owned(),
            directory: meta.as_ref().is_some_and(Metadata::is_dir),
            stamp: meta.as_ref().map(Stamp::of),
        }
    }
}

// === impl Stamp ===

impl Stamp {
    fn of(meta: &Metadata) -> Stamp {
        Stamp {
            dev: meta.dev(),
            ino: meta.ino(),
            size: meta.size(),
            mtime: (meta.mtime(), meta.mtime_nsec()),
            ctime: (meta.ctime(), meta.ctime_nsec()),
        }
    }

    /// Length of the file in bytes.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }
}

/// Groups files into models and finds what makes a group no model.
fn group(files: Vec<SeenFile>) -> BTreeMap<String, Found> {
    let mut groups: BTreeMap<String, Group> = BTreeMap::new();
    for file in files {
        let Some(named) = Named::from_path(&file.path) else {
            continue;
        };
        let named_well = named.id.is_ok();
        let id = named
            .id
            .map_or_else(|text| text, |id| id.as_str().to_owned());
        let group = groups.entry(id).or_insert_with(|| Group {
            named_well,
            files: Vec::new(),
        });
        group.files.push((named.part, file));
    }
    groups
        .into_iter()
        .map(|(id, group)| (id, group.into_found()))
        .collect()
}

struct Group {
    named_well: bool,
    files: Vec<(Option<Part>, SeenFile)>,
}

// === impl Group ===

impl Group {
    fn into_found(mut self) -> Found {
        self.files.sort_by(|(part, file), (other_part, other)| {
            part.cmp(other_part)
                .then_with(|| file.path.cmp(&other.path))
        });
        let flaw = self.flaw();
        Found {
            files: self.files.into_iter().map(|(_, file)| file).collect(),
            flaw,
        }
    }

    fn flaw(&self) -> Option<String> {
        if !self.named_well {
            let alphabet = "A-Z a-z 0-9 . _ -";
            return Some(format!(
                "the name has characters other than {alphabet}, or is longer than {} bytes",
                ModelId::BYTES_MAX
            ));
        }
        if let Some((_, file)) = self.files.iter().find(|(_, file)| file.directory) {
            return Some(format!(
                "{} is a directory, not a regular file",
                file.path.display()
            ));
        }
        let kinds: BTreeSet<Option<u32>> = self
            .files
            .iter()
            .map(|(part, _)| part.map(|part| part.count))
            .collect();
        if kinds.len() > 1 || (kinds.contains(&None) && self.files.len() > 1) {
            return Some(format!("the id is doubled: {}", self.names()));
        }
        let count = kinds.into_iter().flatten().next()?;
        self.missing_part(count)
    }

    fn missing_part(&self, count: u32) -> Option<String> {
        let numbers: BTreeSet<u32> = self
            .files
            .iter()
            .filter_map(|(part, _)| part.map(|part| part.number))
            .collect();
        if let Some(beyond) = numbers.iter().find(|number| !(1..=count).contains(*number)) {
            return Some(format!("there is a part {beyond} of {count}"));
        }
        let missing = (1..=count).find(|number| !numbers.contains(number))?;
        Some(format!("part {missing} of {count} is missing"))
    }

    fn names(&self) -> String {
        const NAMED_MAX: usize = 4;
        let mut names: Vec<String> = self
            .files
            .iter()
            .take(NAMED_MAX)
            .map(|(_, file)| file.path.display().to_string())
            .collect();
        if self.files.len() > NAMED_MAX {
            names.push(format!("and {} more", self.files.len() - NAMED_MAX));
        }
        names.join(", ")
    }
}

#[cfg(test)]
mod tests;
