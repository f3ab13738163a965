//! A file of lines that becomes another one when it is large.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// Who may read it: records tell who talks to whom.
const MODE: u32 = 0o600;

/// `FILE`, and what it was before: `FILE.1` (the newest), `FILE.2` and so on.
///
/// The file is opened for each append: who moves or removes it gets a new one, and an error of one time is none of the next.
#[derive(Debug)]
pub(super) struct Rotating {
    path: PathBuf,
    /// Bytes that a file may have; one line that is longer has a file of its own.
    most: u64,
    /// Files, this one included.
    files: u32,
}

impl Rotating {
    pub(super) const fn new(path: PathBuf, most: u64, files: u32) -> Self {
        Self { path, most, files }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Appends lines, each whole or not at all; an error comes with the number of lines before it.
    pub(super) fn append(&self, lines: &[Vec<u8>]) -> Result<(), (usize, io::Error)> {
        let mut done = 0;
        while done < lines.len() {
            done += self
                .append_some(&lines[done..])
                .map_err(|error| (done, error))?;
        }
        Ok(())
    }

    /// Appends as many lines as have room; if there is none, the next call finds an empty file.
    fn append_some(&self, lines: &[Vec<u8>]) -> io::Result<usize> {
        let mut file = self.open()?;
        let before = file.metadata()?.len();
        let mut bytes = Vec::new();
        let mut count = 0;
        for line in lines {
            let after = before + (bytes.len() + line.len()) as u64;
            if after > self.most && before + bytes.len() as u64 > 0 {
                break;
            }
            bytes.extend_from_slice(line);
            count += 1;
        }
        if count == 0 {
            drop(file);
            self.rotate()?;
            return Ok(0);
        }
        file.write_all(&bytes).inspect_err(|_| {
            // Half a line would spoil the next one, too. If this fails, too, the first error says enough.
            let _ = file.set_len(before);
        })?;
        Ok(count)
    }

    fn open(&self) -> io::Result<File> {
        if let Some(directory) = self.path.parent() {
            fs::create_dir_all(directory)?;
        }
        OpenOptions::new()
            .append(true)
            .create(true)
            .mode(MODE)
            .open(&self.path)
    }

    fn rotate(&self) -> io::Result<()> {
        for number in (1..self.files).rev() {
            rename(&self.numbered(number - 1), &self.numbered(number))?;
        }
        if self.files == 1 {
            fs::remove_file(&self.path)?;
        }
        self.remove_surplus()
    }

    /// Removes what an agent left that was to keep more files.
    fn remove_surplus(&self) -> io::Result<()> {
        for number in self.files.max(1).. {
            match fs::remove_file(self.numbered(number)) {
                Err(error) if error.kind() == ErrorKind::NotFound => break,
                done => done?,
            }
        }
        Ok(())
    }

    /// The file itself is number 0.
    fn numbered(&self, number: u32) -> PathBuf {
        if number == 0 {
            return self.path.clone();
        }
        let mut name = OsString::from(&self.path);
        name.push(format!(".{number}"));
        name.into()
    }
}

/// Renames a file, if it is there.
fn rename(from: &Path, to: &Path) -> io::Result<()> {
    match fs::rename(from, to) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(numbers: std::ops::Range<u32>) -> Vec<Vec<u8>> {
        let line = |number| format!("line {number}\n").into_bytes();
        numbers.map(line).collect()
    }

    /// What the file and those before it have, newest first.
    fn held(file: &Rotating) -> Vec<String> {
        let texts = (0..5).map_while(|number| fs::read_to_string(file.numbered(number)).ok());
        texts
            .map(|text| text.replace("line ", "").replace('\n', ""))
            .collect()
    }

    #[test]
    fn lines_are_whole_and_the_oldest_file_goes() {
        let dir = tempfile::tempdir().unwrap();
        // Room for three lines of seven bytes.
        let file = Rotating::new(dir.path().join("log/flows.jsonl"), 22, 3);
        for (range, expected) in [
            (0..2, vec!["01"]),
            (2..4, vec!["3", "012"]),
            (4..8, vec!["67", "345", "012"]),
            (8..10, vec!["9", "678", "345"]),
        ] {
            file.append(&lines(range)).unwrap();
            assert_eq!(held(&file), expected);
        }
        // A line that is longer than a file may be has its own.
        let long = vec![[b"x".repeat(40), b"\n".to_vec()].concat()];
        file.append(&[long, lines(1..2)].concat()).unwrap();
        assert_eq!(
            held(&file),
            ["1".to_owned(), "x".repeat(40), "9".to_owned()]
        );
        // Another agent goes on where this one was.
        let next = Rotating::new(file.path.clone(), 22, 3);
        next.append(&lines(2..3)).unwrap();
        assert_eq!(held(&next)[0], "12");
        // Of one file nothing is kept, and those that an agent with more files left go.
        let only = Rotating::new(file.path.clone(), 22, 1);
        only.append(&lines(3..5)).unwrap();
        assert_eq!(held(&only), ["4"]);
        assert_eq!(fs::read_dir(dir.path().join("log")).unwrap().count(), 1);
    }

    #[test]
    fn who_takes_the_file_away_gets_another() {
        let dir = tempfile::tempdir().unwrap();
        let file = Rotating::new(dir.path().join("flows.jsonl"), 100, 2);
        file.append(&lines(0..1)).unwrap();
        fs::remove_file(file.path()).unwrap();
        file.append(&lines(1..2)).unwrap();
        assert_eq!(held(&file), ["1"]);
    }

    /// The device takes nothing, as a full disk.
    #[test]
    fn an_error_comes_with_what_was_written() {
        let file = Rotating::new("/dev/full".into(), 100, 2);
        let (done, error) = file.append(&lines(0..2)).unwrap_err();
        assert_eq!((done, error.kind()), (0, ErrorKind::StorageFull));
        let dir = tempfile::tempdir().unwrap();
        let file = Rotating::new(dir.path().join("flows.jsonl"), 15, 2);
        fs::create_dir(file.numbered(1)).unwrap();
        // It has no room, and cannot become FILE.1.
        let (done, _) = file.append(&lines(0..4)).unwrap_err();
        assert_eq!(done, 2);
        fs::remove_dir(file.numbered(1)).unwrap();
        file.append(&lines(2..4)).unwrap();
        assert_eq!(held(&file), ["23", "01"]);
    }
}
