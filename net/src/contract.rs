//! How the program of a worker is told who it is and where its runner is: by the flags of Beam's container contract.
//!
//! A worker's id ends in a token ([`crate::with_token`]), and all users of a machine can read command lines. So a program
//! that knows of [`WORKER_ID`] is told the id without its token by `--id`, and the whole id by that environment variable,
//! which its own user alone can read. Other programs, such as Beam's own `boot`, know the flag only: they are told all by it.

use std::path::Path;

use crate::without_token;

/// The environment variable of the whole id.
pub const WORKER_ID: &str = "PURLIN_WORKER_ID";
/// An environment with this capability has workers that read [`WORKER_ID`].
pub const READS_WORKER_ID: &str = "purlin:protocol:worker_id_in_environment:v1";
/// The file name of a program that reads [`WORKER_ID`], whatever the pipeline says of its environment.
const BOOT: &str = "purlin-boot";

/// Whether this program is one that reads [`WORKER_ID`], by its file name.
pub fn reads_worker_id(program: impl AsRef<Path>) -> bool {
    program.as_ref().file_name().is_some_and(|name| name == BOOT)
}

/// What a worker's program is told. An address is `host:port`, and empty where there is none.
#[derive(Clone, Copy, Debug)]
pub struct Contract<'a> {
    /// The worker's whole id.
    pub worker_id: &'a str,
    /// Where log entries go.
    pub logging: &'a str,
    /// Where staged files are had.
    pub artifact: &'a str,
    /// Where the runner tells what else is needed.
    pub provision: &'a str,
    /// Where bundles come from.
    pub control: &'a str,
}

impl Contract<'_> {
    /// The flags, and the environment variable that belongs to them if `reads_worker_id`.
    pub fn told(&self, reads_worker_id: bool) -> (Vec<String>, Option<(&'static str, String)>) {
        let shown = match reads_worker_id {
            true => without_token(self.worker_id),
            false => self.worker_id,
        };
        let flags = vec![
            format!("--id={shown}"),
            format!("--logging_endpoint={}", self.logging),
            format!("--artifact_endpoint={}", self.artifact),
            format!("--provision_endpoint={}", self.provision),
            format!("--control_endpoint={}", self.control),
        ];
        let variable = (shown != self.worker_id).then(|| (WORKER_ID, self.worker_id.to_owned()));
        (flags, variable)
    }
}

/// The whole id of this process's worker, which was told by the flag or, but for its token, by the flag and whole by the
/// environment.
pub fn whole_worker_id(flag: &str) -> String {
    whole(flag, std::env::var(WORKER_ID).ok())
}

/// The variable is another worker's if that one has started this one.
fn whole(flag: &str, variable: Option<String>) -> String {
    variable
        .filter(|whole| without_token(whole) == flag)
        .unwrap_or_else(|| flag.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::with_token;

    fn contract(worker_id: &str) -> Contract<'_> {
        Contract {
            worker_id,
            logging: "runner:1",
            artifact: "runner:1",
            provision: "runner:1",
            control: "runner:1",
        }
    }

    #[test]
    fn a_program_that_reads_the_variable_has_no_token_on_its_command_line() {
        let id = with_token("worker-1");
        let (flags, variable) = contract(&id).told(true);
        assert_eq!(flags[0], "--id=worker-1");
        let (name, value) = variable.unwrap();
        assert_eq!((name, whole("worker-1", Some(value))), (WORKER_ID, id));
    }

    #[test]
    fn other_programs_and_ids_without_a_token_need_the_flag_alone() {
        let id = with_token("worker-1");
        assert_eq!(contract(&id).told(false).0[0], format!("--id={id}"));
        assert_eq!(contract(&id).told(false).1, None);
        assert_eq!(contract("w").told(true).1, None);
        assert_eq!(whole(&id, None), id);
        assert_eq!(whole("w", None), "w");
    }

    #[test]
    fn the_variable_of_another_worker_is_not_taken() {
        let parent = with_token("worker-1");
        assert_eq!(whole("worker-2", Some(parent)), "worker-2");
        assert_eq!(whole("worker-2", Some(String::new())), "worker-2");
    }

    #[test]
    fn boot_is_known_by_its_name() {
        assert!(reads_worker_id("/opt/purlin-boot"));
        assert!(reads_worker_id("purlin-boot"));
        assert!(!reads_worker_id("/opt/purlin-boot/boot"));
        assert!(!reads_worker_id("sudo"));
    }
}
