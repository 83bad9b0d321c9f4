//! The temporary files of the bundles become the files.

use std::collections::BTreeMap;
use std::io::{self, Write};

use super::WriteError;
use super::bundles::Part;
use super::sink::FileSink;
use super::target::Target;
use crate::io::compression::Encoder;
use crate::io::fs;

/// A file is about so large where nobody says how many there are to be.
const SHARD_BYTES: u64 = 256 << 20;

/// A file to be: what it is put together of.
struct File<'a> {
    name: String,
    parts: Vec<&'a Part>,
}

/// Puts the parts together under the files' names. It may be called again when it failed or its result was lost.
pub(super) fn finalize<T, S: FileSink<T>>(
    target: &Target,
    sink: &S,
    folder: &str,
    parts: &[Part],
) -> Result<Vec<String>, WriteError> {
    let mut destinations: BTreeMap<&str, Vec<&Part>> = BTreeMap::new();
    for part in parts {
        destinations.entry(&part.0).or_default().push(part);
    }
    if target.one_destination {
        // There is a file, even where there are no elements.
        destinations.entry("").or_default();
    }
    let mut files = Vec::new();
    for (destination, mut parts) in destinations {
        // Names begin with the time: elements come in the order in which they were written, as far as there is one.
        parts.sort_unstable_by(|a, b| a.1.cmp(&b.1));
        files.extend(if S::CONCATENATES {
            by_size(target, folder, destination, parts)?
        } else {
            one_by_one(target, destination, parts)
        });
    }
    let mut ready = Vec::new();
    for (number, file) in files.into_iter().enumerate() {
        let temporary = format!("{folder}/shard-{number:05}");
        assemble(target, sink, &temporary, &file.parts)
            .map_err(|source| target.error("cannot write", &temporary, source))?;
        ready.push((temporary, file.name));
    }
    // Only when all of them are whole.
    for (temporary, name) in &ready {
        let put = match name.rsplit_once('/') {
            Some((folder, _)) if !target.one_destination => fs::create_folder(folder),
            _ => Ok(()),
        };
        put.and_then(|()| fs::put(temporary, name))
            .map_err(|source| target.error("cannot put what was written to", name, source))?;
    }
    Ok(ready.into_iter().map(|(_, name)| name).collect())
}

/// Files of about equal size, of parts that can follow each other.
fn by_size<'a>(
    target: &Target,
    folder: &str,
    destination: &str,
    parts: Vec<&'a Part>,
) -> Result<Vec<File<'a>>, WriteError> {
    let sizes = parts
        .iter()
        .map(|part| fs::size(&part.1))
        .collect::<io::Result<Vec<u64>>>()
        .map_err(|source| target.error("cannot look into", folder, source))?;
    let total: u64 = sizes.iter().sum();
    let shards = target.shard_count().unwrap_or_else(|| {
        usize::try_from(total.div_ceil(SHARD_BYTES))
            .unwrap_or(1)
            .clamp(1, parts.len().max(1))
    });
    let mut files: Vec<File<'a>> = (0..shards)
        .map(|shard| File {
            name: target.file_name(destination, (!target.single).then_some((shard, shards))),
            parts: Vec::new(),
        })
        .collect();
    let mut before = 0;
    for (part, size) in parts.into_iter().zip(sizes) {
        // The shard in which the middle of the part lies, when all are equally large.
        let middle = before + size / 2;
        let shard = (u128::from(middle) * shards as u128 / u128::from(total.max(1))) as usize;
        files[shard.min(shards - 1)].parts.push(part);
        before += size;
    }
    Ok(files)
}

/// A file of each part.
fn one_by_one<'a>(target: &Target, destination: &str, parts: Vec<&'a Part>) -> Vec<File<'a>> {
    let file = |shard: usize, shards: usize, parts: Vec<&'a Part>| File {
        name: target.file_name(destination, (!target.single).then_some((shard, shards))),
        parts,
    };
    match target.shard_count() {
        Some(shards) => (0..shards)
            .map(|shard| {
                let own = parts.iter().copied().filter(|part| part.3 == shard as i64);
                file(shard, shards, own.collect())
            })
            .collect(),
        None if parts.is_empty() => vec![file(0, 1, Vec::new())],
        None => {
            let shards = parts.len();
            let each = parts.into_iter().enumerate();
            each.map(|(shard, part)| file(shard, shards, vec![part]))
                .collect()
        }
    }
}

/// Writes a file of several parts, which stay.
fn assemble<T, S: FileSink<T>>(target: &Target, sink: &S, to: &str, parts: &[&Part]) -> io::Result<()> {
    // Left by a try before this one.
    fs::remove_file(to)?;
    // What the sink makes of the first part says what stands before all of them; without any, the prototype says it.
    let header = parts.first().map_or_else(|| sink.header(), |part| part.2.clone());
    let footer = sink.footer();
    if let ([part], true, true) = (parts, header.is_empty(), footer.is_empty())
        && fs::link(&part.1, to)
    {
        // One name more instead of a copy, where the file system has links.
        return Ok(());
    }
    let mut file = fs::create(to)?;
    // Compressed parts may follow each other: readers take them for one.
    let piece = |file, bytes: &[u8]| {
        let mut encoder = Encoder::new(target.compression, file)?;
        encoder.write_all(bytes)?;
        encoder.finish()
    };
    if !header.is_empty() {
        file = piece(file, &header)?;
    }
    for part in parts {
        io::copy(&mut fs::open(&part.1, 0)?, &mut file)?;
    }
    if parts.is_empty() {
        // An empty file, that says how it is compressed.
        let mut sink = sink.clone();
        let mut empty = Vec::new();
        sink.start(&mut empty)
            .and_then(|()| sink.end(&mut empty))
            .map_err(io::Error::other)?;
        if !empty.is_empty() || (header.is_empty() && footer.is_empty()) {
            file = piece(file, &empty)?;
        }
    }
    if !footer.is_empty() {
        file = piece(file, &footer)?;
    }
    file.finish()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::sink::TextSink;
    use super::*;

    #[test]
    fn parts_are_spread_and_finalizing_can_be_repeated() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| format!("{}/{name}", folder.path().display());
        let parts: Vec<Part> = (0..6)
            .map(|i| (String::new(), at(&format!("bundle-{i}")), Vec::new(), -1))
            .collect();
        for (i, part) in parts.iter().enumerate() {
            fs::write(&part.1, format!("{i}\n")).unwrap();
        }
        let mut target = Target::new(&at("out"));
        let mut sink = TextSink::default();
        target.shards = Some(3);
        sink.footer = Some("end".to_owned());
        for _ in 0..2 {
            let files = finalize::<String, _>(&target, &sink, &at(""), &parts).unwrap();
            let texts: Vec<String> = files
                .iter()
                .map(|file| fs::read_to_string(file).unwrap())
                .collect();
            assert_eq!(texts, ["0\n1\nend\n", "2\n3\nend\n", "4\n5\nend\n"]);
            assert_eq!(files[2], at("out-00002-of-00003"));
        }
        sink.footer = None;
        target.shards = None;
        target.single = true;
        for _ in 0..2 {
            finalize::<String, _>(&target, &sink, &at(""), &parts[..1]).unwrap();
            assert_eq!(fs::read_to_string(at("out")).unwrap(), "0\n");
        }
        finalize::<String, _>(&target, &sink, &at(""), &[]).unwrap();
        assert_eq!(fs::read_to_string(at("out")).unwrap(), "");
    }
}
