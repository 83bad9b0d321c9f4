//! The temporary files of the bundles become the files.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use super::WriteTextError;
use super::target::Target;
use crate::io::compression::Encoder;

/// A file is about so large where nobody says how many there are to be.
const SHARD_BYTES: u64 = 256 << 20;

/// Puts the parts together under the files' names. It may be called again when it failed or its result was lost.
pub(super) fn finalize(
    target: &Target,
    folder: &str,
    parts: &[String],
) -> Result<Vec<String>, WriteTextError> {
    let mut parts: Vec<&String> = parts.iter().collect();
    // Names begin with the time: lines come in the order in which they were written, as far as there is one.
    parts.sort_unstable();
    let sizes = parts
        .iter()
        .map(|part| fs::metadata(part).map(|found| found.len()))
        .collect::<io::Result<Vec<u64>>>()
        .map_err(|source| target.error("cannot look into", Path::new(folder), source))?;
    let total: u64 = sizes.iter().sum();
    let shards = match target.shards {
        _ if target.single => 1,
        Some(shards) => shards.max(1),
        None => usize::try_from(total.div_ceil(SHARD_BYTES))
            .unwrap_or(1)
            .clamp(1, parts.len().max(1)),
    };
    let mut contents: Vec<Vec<&String>> = vec![Vec::new(); shards];
    let mut before = 0;
    for (part, size) in parts.iter().zip(&sizes) {
        // The shard in which the middle of the part lies, when all are equally large.
        let middle = before + size / 2;
        let shard = (u128::from(middle) * shards as u128 / u128::from(total.max(1))) as usize;
        contents[shard.min(shards - 1)].push(part);
        before += size;
    }
    let mut ready = Vec::new();
    for (shard, parts) in contents.iter().enumerate() {
        let temporary = format!("{folder}/shard-{shard:05}");
        let temporary = Path::new(&temporary);
        assemble(target, temporary, parts)
            .map_err(|source| target.error("cannot write", temporary, source))?;
        let name = target.file_name((!target.single).then_some((shard, shards)));
        ready.push((temporary.to_path_buf(), name));
    }
    // Only when all of them are whole.
    for (temporary, name) in &ready {
        fs::rename(temporary, name)
            .map_err(|source| target.error("cannot rename a file to", Path::new(name), source))?;
    }
    Ok(ready.into_iter().map(|(_, name)| name).collect())
}

/// Writes a file of several parts, which stay.
fn assemble(target: &Target, to: &Path, parts: &[&String]) -> io::Result<()> {
    // Left by a try before this one.
    match fs::remove_file(to) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    if let ([part], None, None) = (parts, &target.header, &target.footer)
        && fs::hard_link(part, to).is_ok()
    {
        // One name more instead of a copy, where the file system has links.
        return Ok(());
    }
    let mut file = File::create_new(to)?;
    // Compressed parts may follow each other: readers take them for one.
    let line = |file: File, line: &Option<String>| -> io::Result<File> {
        let Some(line) = line else { return Ok(file) };
        let mut encoder = Encoder::new(target.compression, file)?;
        write!(encoder, "{line}{}", target.line_end)?;
        encoder.finish()
    };
    file = line(file, &target.header)?;
    for part in parts {
        io::copy(&mut File::open(part)?, &mut file)?;
    }
    if parts.is_empty() && target.header.is_none() && target.footer.is_none() {
        // An empty file that says how it is compressed.
        file = Encoder::new(target.compression, file)?.finish()?;
    }
    line(file, &target.footer)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_spread_and_finalizing_can_be_repeated() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| format!("{}/{name}", folder.path().display());
        let parts: Vec<String> = (0..6).map(|i| at(&format!("bundle-{i}"))).collect();
        for (i, part) in parts.iter().enumerate() {
            fs::write(part, format!("{i}\n")).unwrap();
        }
        let mut target = Target::new(&at("out"));
        target.shards = Some(3);
        target.footer = Some("end".to_owned());
        for _ in 0..2 {
            let files = finalize(&target, &at(""), &parts).unwrap();
            let texts: Vec<String> = files
                .iter()
                .map(|file| fs::read_to_string(file).unwrap())
                .collect();
            assert_eq!(texts, ["0\n1\nend\n", "2\n3\nend\n", "4\n5\nend\n"]);
            assert_eq!(files[2], at("out-00002-of-00003"));
        }
        target.footer = None;
        target.single = true;
        for _ in 0..2 {
            finalize(&target, &at(""), &parts[..1]).unwrap();
            assert_eq!(fs::read_to_string(at("out")).unwrap(), "0\n");
        }
        finalize(&target, &at(""), &[]).unwrap();
        assert_eq!(fs::read_to_string(at("out")).unwrap(), "");
    }
}
