//! Environments whose workers are what a client names, run on this machine.
//!
//! | URN | a client on another machine may use it |
//! |---|---|
//! | `beam:env:external:v1` (LOOPBACK too), `beam:env:default:v1`, none | always: nothing runs here |
//! | `beam:env:process:v1`, `beam:env:harness_subprocess_python:v1` | where `PROCESS` is allowed |
//! | `beam:env:docker:v1` | where `DOCKER` is allowed |
//! | `beam:env:anyof:v1` | where all its choices may be used |
//! | any other | never |

use prost::Message as _;
use purlin_proto::pipeline::{AnyOfEnvironmentPayload, Environment, Pipeline};
use purlin_proto::urns::environments;
use purlin_runner::environments::PYTHON_SUBPROCESS;

use super::JobError;
use crate::options::OwnMachine;

/// Refuses a pipeline of a client on another machine that would run on this one what is not allowed.
pub(super) fn check(pipeline: &Pipeline, allowed: &[OwnMachine]) -> Result<(), JobError> {
    let mut left: Vec<Environment> = pipeline
        .components
        .iter()
        .flat_map(|components| components.environments.values().cloned())
        .collect();
    while let Some(environment) = left.pop() {
        let (name, own) = match environment.urn.as_str() {
            "" | environments::EXTERNAL | environments::DEFAULT => continue,
            environments::PROCESS | PYTHON_SUBPROCESS => ("PROCESS", OwnMachine::Process),
            environments::DOCKER => ("DOCKER", OwnMachine::Docker),
            environments::ANYOF => {
                // One that cannot be read is refused with a better reason where it is used.
                let choices = AnyOfEnvironmentPayload::decode(environment.payload);
                left.extend(choices.unwrap_or_default().environments);
                continue;
            }
            // Only what is known to be harmless passes, so that an environment that is new to the runner must be looked at here.
            _ => return Err(JobError::UnknownEnvironment { urn: environment.urn }),
        };
        if !allowed.contains(&own) {
            return Err(JobError::OwnMachine { name });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use purlin_proto::pipeline::Components;

    use super::*;

    fn pipeline(environment: Environment) -> Pipeline {
        Pipeline {
            components: Some(Components {
                environments: [("e".to_owned(), environment)].into(),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    fn environment(urn: &str) -> Environment {
        Environment {
            urn: urn.to_owned(),
            ..Default::default()
        }
    }

    fn choice(environments: Vec<Environment>) -> Environment {
        Environment {
            payload: AnyOfEnvironmentPayload { environments }.encode_to_vec().into(),
            ..environment(environments::ANYOF)
        }
    }

    #[test]
    fn what_runs_on_this_machine_must_be_allowed() {
        let process = pipeline(environment(environments::PROCESS));
        assert!(check(&process, &[OwnMachine::Docker]).is_err());
        assert!(check(&process, &[OwnMachine::Process]).is_ok());
        assert!(check(&pipeline(environment(environments::DOCKER)), &[]).is_err());
        assert!(check(&pipeline(environment(environments::EXTERNAL)), &[]).is_ok());
        let any = choice(vec![
            environment(environments::EXTERNAL),
            environment(environments::PROCESS),
        ]);
        let error = check(&pipeline(any), &[]).unwrap_err().to_string();
        assert!(error.contains("--allow_environments=PROCESS"), "{error}");
    }

    #[test]
    fn a_shell_command_of_the_python_sdk_is_a_process() {
        let subprocess = environment(PYTHON_SUBPROCESS);
        for refused in [subprocess.clone(), choice(vec![subprocess.clone()])] {
            let error = check(&pipeline(refused), &[OwnMachine::Docker]).unwrap_err();
            let error = error.to_string();
            assert!(error.contains("--allow_environments=PROCESS"), "{error}");
        }
        assert!(check(&pipeline(subprocess), &[OwnMachine::Process]).is_ok());
    }

    #[test]
    fn only_what_is_known_to_be_harmless_passes() {
        for harmless in [environments::EXTERNAL, environments::DEFAULT, ""] {
            let harmless = choice(vec![environment(harmless)]);
            assert!(check(&pipeline(harmless), &[]).is_ok());
        }
        let unknown = pipeline(choice(vec![environment("beam:env:moon:v1")]));
        let allowed = [OwnMachine::Process, OwnMachine::Docker];
        let error = check(&unknown, &allowed).unwrap_err().to_string();
        assert!(error.contains("beam:env:moon:v1"), "{error}");
    }
}
