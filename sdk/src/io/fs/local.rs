//! Local files.

use std::fs::{self, File, Metadata, OpenOptions, Permissions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use super::FileWriter;
use crate::io::files::{FileMetadata, MatchError};

impl FileWriter for File {
    fn finish(self: Box<Self>) -> io::Result<()> {
        Ok(())
    }
}

fn metadata(path: String) -> Result<Option<FileMetadata>, MatchError> {
    let found = match fs::metadata(&path) {
        Ok(found) => found,
        // A link to nowhere, or a file that has just gone.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(MatchError::Unreadable { path, source }),
    };
    let modified = found
        .modified()
        .ok()
        .and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    Ok((!found.is_dir()).then(|| FileMetadata {
        path,
        size: found.len(),
        last_modified_millis: modified.map_or(0, |since| since.as_millis() as i64),
    }))
}

pub fn find(pattern: &str) -> Result<Vec<FileMetadata>, MatchError> {
    // A name that looks like a pattern may well be a file's.
    if let Ok(Some(file)) = metadata(pattern.to_owned()) {
        return Ok(vec![file]);
    }
    let mut files = Vec::new();
    if !pattern.contains(['*', '?', '[']) {
        return Ok(files);
    }
    let paths = glob::glob(pattern).map_err(|error| MatchError::pattern(pattern, &error))?;
    for path in paths {
        let path = path.map_err(|error| MatchError::Unreadable {
            path: error.path().display().to_string(),
            source: error.into(),
        })?;
        let Some(path) = path.to_str() else {
            return Err(MatchError::Unreadable {
                path: path.display().to_string(),
                source: io::Error::new(io::ErrorKind::InvalidData, "its name is not UTF-8"),
            });
        };
        files.extend(metadata(path.to_owned())?);
    }
    Ok(files)
}

pub fn open(path: &str, offset: u64) -> io::Result<Box<dyn Read + Send>> {
    let mut file = File::open(path)?;
    if offset > 0 {
        file.seek(SeekFrom::Start(offset))?;
    }
    Ok(Box::new(file))
}

pub fn create(path: &str) -> io::Result<Box<dyn FileWriter>> {
    Ok(Box::new(File::create_new(path)?))
}

pub fn size(path: &str) -> io::Result<u64> {
    fs::metadata(path).map(|found| found.len())
}

/// So many links are followed to a file before they count as a circle, as the kernel has it.
const MAX_LINKS: usize = 40;

/// Where a path leads when its links are followed.
struct Followed {
    /// Past all links; nothing need be there.
    path: PathBuf,
    /// What is there.
    found: Option<Metadata>,
    /// Whether a link led through an open file of a process, as `/dev/stdout` does: what is open is meant, whatever its path is now.
    open: bool,
}

fn follow(path: &str) -> io::Result<Followed> {
    let mut at = PathBuf::from(path);
    let mut open = false;
    for _ in 0..MAX_LINKS {
        open |= at.starts_with("/proc") || at.starts_with("/dev/fd");
        match fs::symlink_metadata(&at) {
            Ok(found) if found.is_symlink() && !open => {
                let folder = at.parent().map(Path::to_path_buf).unwrap_or_default();
                // An absolute one replaces the folder.
                at = folder.join(fs::read_link(&at)?);
            }
            // A pipe that is open has a name that leads nowhere: the kernel has to follow it.
            Ok(_) => {
                let found = Some(fs::metadata(&at)?);
                return Ok(Followed {
                    path: at,
                    found,
                    open,
                });
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Followed {
                    path: at,
                    found: None,
                    open,
                });
            }
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::other(format!(
        "\"{path}\": too many links, which may lead in a circle"
    )))
}

/// Gives a file the owner and the mode of the one that it is to replace. `false`: it cannot have that owner.
fn dress(file: &str, like: &Metadata) -> io::Result<bool> {
    let own = fs::metadata(file)?;
    if (own.uid(), own.gid()) != (like.uid(), like.gid())
        && chown(file, Some(like.uid()), Some(like.gid())).is_err()
    {
        return Ok(false);
    }
    // After the owner: a change of owner takes bits away.
    fs::set_permissions(file, Permissions::from_mode(like.mode() & 0o7777))?;
    Ok(true)
}

/// Makes a whole temporary file the output at a path. A file that is there is replaced at one stroke and gives its mode and owner; links
/// are followed; pipes and devices get what was written, as do files that cannot be replaced: those of another owner, those that are
/// mount points, those on another file system. The temporary file may stay.
pub fn put(from: &str, to: &str) -> io::Result<()> {
    let place = follow(to)?;
    let Some(found) = &place.found else {
        return match fs::rename(from, &place.path) {
            Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
                pour(from, File::create(&place.path)?)
            }
            renamed => renamed,
        };
    };
    if place.open || !(found.is_file() || found.is_dir()) {
        return pour(from, OpenOptions::new().append(true).open(&place.path)?);
    }
    let own = fs::metadata(from)?;
    if (own.dev(), own.ino()) == (found.dev(), found.ino()) {
        // Put there by a try before this one.
        return Ok(());
    }
    if found.is_dir() || dress(from, found)? {
        match fs::rename(from, &place.path) {
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::CrossesDevices | io::ErrorKind::ResourceBusy
                ) => {}
            renamed => return renamed,
        }
    }
    pour(
        from,
        OpenOptions::new().write(true).truncate(true).open(&place.path)?,
    )
}

fn pour(from: &str, mut to: File) -> io::Result<()> {
    io::copy(&mut File::open(from)?, &mut to).map(|_| ())
}

/// The folder in which temporary files of an output belong: that of the file itself, past all links, so that it can be renamed. `None`:
/// the output is a device or an open file of a process, and its folder holds no files.
pub fn folder_of(path: &str) -> io::Result<Option<PathBuf>> {
    let place = follow(path)?;
    let device = place.found.is_some_and(|found| {
        let kind = found.file_type();
        kind.is_char_device() || kind.is_block_device()
    });
    if place.open || device {
        return Ok(None);
    }
    Ok(Some(match place.path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_path_buf(),
        _ => PathBuf::from("."),
    }))
}

pub fn link(from: &str, to: &str) -> bool {
    fs::hard_link(from, to).is_ok()
}

pub fn create_folder(folder: &str) -> io::Result<()> {
    fs::create_dir_all(folder)
}

fn gone_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

pub fn remove_file(path: &str) -> io::Result<()> {
    gone_is_fine(fs::remove_file(path))
}

pub fn remove_folder(folder: &str) -> io::Result<()> {
    gone_is_fine(fs::remove_dir_all(folder))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::thread;

    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::*;

    /// A folder with an output and a temporary file.
    struct Case {
        folder: tempfile::TempDir,
    }

    impl Case {
        fn new() -> Case {
            let folder = tempfile::tempdir().unwrap();
            fs::write(folder.path().join("temporary"), "new").unwrap();
            Case { folder }
        }

        fn at(&self, name: &str) -> String {
            self.folder.path().join(name).display().to_string()
        }

        fn put(&self, name: &str) {
            put(&self.at("temporary"), &self.at(name)).unwrap();
        }
    }

    #[test]
    fn links_are_written_through() {
        let case = Case::new();
        fs::create_dir(case.at("elsewhere")).unwrap();
        fs::write(case.at("elsewhere/file"), "old").unwrap();
        symlink("elsewhere/file", case.at("link")).unwrap();
        symlink(case.at("link"), case.at("linked")).unwrap();
        case.put("linked");
        assert!(fs::symlink_metadata(case.at("link")).unwrap().is_symlink());
        assert!(fs::symlink_metadata(case.at("linked")).unwrap().is_symlink());
        assert_eq!(fs::read_to_string(case.at("elsewhere/file")).unwrap(), "new");
        let folder = folder_of(&case.at("linked")).unwrap().unwrap();
        assert_eq!(folder, case.folder.path().join("elsewhere"));
    }

    #[test]
    fn a_link_to_nowhere_gets_its_file_and_a_circle_is_an_error() {
        let case = Case::new();
        symlink("absent", case.at("link")).unwrap();
        case.put("link");
        assert_eq!(fs::read_to_string(case.at("absent")).unwrap(), "new");
        symlink("round", case.at("round")).unwrap();
        fs::write(case.at("temporary"), "new").unwrap();
        let error = put(&case.at("temporary"), &case.at("round")).unwrap_err();
        assert!(error.to_string().contains("circle"), "{error}");
    }

    #[test]
    fn a_pipe_gets_what_was_written() {
        let case = Case::new();
        mknodat(CWD, case.at("pipe"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        let pipe = case.at("pipe");
        let reader = thread::spawn(move || fs::read_to_string(pipe).unwrap());
        case.put("pipe");
        assert!(
            fs::symlink_metadata(case.at("pipe"))
                .unwrap()
                .file_type()
                .is_fifo()
        );
        assert_eq!(reader.join().unwrap(), "new");
    }

    #[test]
    fn a_file_keeps_its_mode_and_its_owner() {
        let case = Case::new();
        fs::write(case.at("file"), "old").unwrap();
        fs::set_permissions(case.at("file"), Permissions::from_mode(0o600)).unwrap();
        // Only root can give a file away; others see that it stays theirs.
        let given = chown(case.at("file"), Some(12_345), Some(12_346)).is_ok();
        let before = fs::metadata(case.at("file")).unwrap();
        assert_eq!(given, before.uid() == 12_345);
        case.put("file");
        let after = fs::metadata(case.at("file")).unwrap();
        assert_eq!(after.mode() & 0o7777, 0o600);
        assert_eq!((after.uid(), after.gid()), (before.uid(), before.gid()));
        assert_eq!(fs::read_to_string(case.at("file")).unwrap(), "new");
    }

    #[test]
    fn an_open_file_of_a_process_is_added_to() {
        use std::os::fd::AsRawFd;
        let case = Case::new();
        fs::write(case.at("open"), "before ").unwrap();
        let open = OpenOptions::new().append(true).open(case.at("open")).unwrap();
        let path = format!("/proc/self/fd/{}", open.as_raw_fd());
        symlink(&path, case.at("stdout")).unwrap();
        case.put("stdout");
        assert_eq!(fs::read_to_string(case.at("open")).unwrap(), "before new");
        assert_eq!(folder_of(&case.at("stdout")).unwrap(), None);
        // A pipe has no path at all.
        let (mut reader, writer) = io::pipe().unwrap();
        put(
            &case.at("temporary"),
            &format!("/proc/self/fd/{}", writer.as_raw_fd()),
        )
        .unwrap();
        drop(writer);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "new");
    }

    #[test]
    fn a_try_after_the_first_changes_nothing() {
        let case = Case::new();
        fs::hard_link(case.at("temporary"), case.at("file")).unwrap();
        case.put("file");
        assert_eq!(fs::read_to_string(case.at("file")).unwrap(), "new");
    }
}
