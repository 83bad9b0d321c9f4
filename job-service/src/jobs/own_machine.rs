//! Environments whose workers are what a client names, run on this machine.

use prost::Message as _;
use purlin_proto::pipeline::{AnyOfEnvironmentPayload, Environment, Pipeline};
use purlin_proto::urns::environments;

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
            environments::PROCESS => ("PROCESS", OwnMachine::Process),
            environments::DOCKER => ("DOCKER", OwnMachine::Docker),
            environments::ANYOF => {
                // One that cannot be read is refused with a better reason where it is used.
                let choices = AnyOfEnvironmentPayload::decode(environment.payload);
                left.extend(choices.unwrap_or_default().environments);
                continue;
            }
            _ => continue,
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

    #[test]
    fn what_runs_on_this_machine_must_be_allowed() {
        let process = pipeline(environment(environments::PROCESS));
        assert!(check(&process, &[OwnMachine::Docker]).is_err());
        assert!(check(&process, &[OwnMachine::Process]).is_ok());
        assert!(check(&pipeline(environment(environments::DOCKER)), &[]).is_err());
        assert!(check(&pipeline(environment(environments::EXTERNAL)), &[]).is_ok());
        let choices = AnyOfEnvironmentPayload {
            environments: vec![
                environment(environments::EXTERNAL),
                environment(environments::PROCESS),
            ],
        };
        let mut any = environment(environments::ANYOF);
        any.payload = choices.encode_to_vec().into();
        let error = check(&pipeline(any), &[]).unwrap_err().to_string();
        assert!(error.contains("--allow_environments=PROCESS"), "{error}");
    }
}
