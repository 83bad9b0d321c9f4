//! How a cluster is reached.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError as ClientError, RDKafkaErrorCode as Code};

use crate::error::{KafkaError, reason};

/// The addresses of some brokers, and settings of the client.
#[derive(Clone)]
pub(crate) struct Connection {
    pub brokers: String,
    pub properties: BTreeMap<String, String>,
    /// How long an answer may take.
    pub timeout: Duration,
}

impl Connection {
    pub fn new(brokers: impl Into<String>) -> Connection {
        Connection {
            brokers: brokers.into(),
            properties: BTreeMap::new(),
            timeout: Duration::from_secs(30),
        }
    }

    /// The settings of a client: ours, then the user's.
    pub fn config(&self, ours: &[(&str, &str)]) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.brokers)
            .set("client.id", "purlin");
        // A broker that was restarted is found again soon.
        config.set("reconnect.backoff.max.ms", "1000");
        for (name, value) in ours {
            config.set(*name, *value);
        }
        for (name, value) in &self.properties {
            config.set(name, value);
        }
        config
    }

    /// What is wrong with the settings, as far as it shows without a broker. `reserved` are those that a transform sets itself,
    /// with what is to be used instead.
    pub fn problems(&self, reserved: &[(&str, &str)]) -> Vec<KafkaError> {
        let refused = |name: &str, value: &str, reason: String| KafkaError::Property {
            name: name.to_owned(),
            value: shown(name, value).to_owned(),
            reason,
        };
        let mut problems = Vec::new();
        for (name, value) in &self.properties {
            if let Some((_, instead)) = reserved.iter().find(|(reserved, _)| reserved == name) {
                problems.push(refused(
                    name,
                    value,
                    format!("the transform sets it itself; {instead}"),
                ));
                continue;
            }
            let mut alone = ClientConfig::new();
            alone.set(name, value);
            if let Err(error) = alone.create_native_config() {
                let reason = match error {
                    ClientError::ClientConfig(_, description, _, _) => description,
                    other => other.to_string(),
                };
                problems.push(refused(name, value, reason));
            }
        }
        if self.brokers.trim().is_empty() {
            problems.push(refused(
                "bootstrap.servers",
                &self.brokers,
                "no address of a broker is given".into(),
            ));
        }
        problems
    }

    /// The error that a client's error is.
    pub fn error(&self, action: impl Into<String>, error: &ClientError, heard: Option<String>) -> KafkaError {
        let (brokers, action) = (self.brokers.clone(), action.into());
        let told = reason(error);
        match error.rdkafka_error_code() {
            Some(Code::Authentication | Code::SaslAuthenticationFailed | Code::UnsupportedSASLMechanism) => {
                KafkaError::Login {
                    brokers,
                    reason: heard.unwrap_or(told),
                }
            }
            Some(
                Code::TopicAuthorizationFailed
                | Code::GroupAuthorizationFailed
                | Code::ClusterAuthorizationFailed
                | Code::TransactionalIdAuthorizationFailed,
            ) => KafkaError::NotAllowed {
                brokers,
                action,
                reason: told,
            },
            Some(code) if crate::error::passes(code) || code == Code::MessageTimedOut => {
                KafkaError::Unreachable {
                    brokers,
                    action,
                    waited: self.timeout,
                    reason: heard.unwrap_or(told),
                }
            }
            _ => KafkaError::Other {
                brokers,
                action,
                reason: told,
            },
        }
    }
}

/// A value that may be shown: no password is.
fn shown<'a>(name: &str, value: &'a str) -> &'a str {
    let secret = ["password", "secret", "key.pem", "sasl.oauthbearer.config"];
    if secret.iter().any(|part| name.contains(part)) {
        "…"
    } else {
        value
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let properties: BTreeMap<&str, &str> = self
            .properties
            .iter()
            .map(|(name, value)| (name.as_str(), shown(name, value)))
            .collect();
        f.debug_struct("Connection")
            .field("brokers", &self.brokers)
            .field("properties", &properties)
            .field("timeout", &self.timeout)
            .finish()
    }
}
