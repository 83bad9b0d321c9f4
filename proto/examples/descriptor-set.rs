//! `descriptor-set FILE`: writes the embedded `FileDescriptorSet` to FILE, for tools that compare contracts.

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    let (Some(path), None) = (args.next(), args.next()) else {
        eprintln!("usage: descriptor-set FILE");
        return ExitCode::from(2);
    };
    match std::fs::write(&path, purlin_proto::FILE_DESCRIPTOR_SET) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cannot write {}: {error}", path.display());
            ExitCode::FAILURE
        }
    }
}
