//! `HEALTHCHECK`: how an image says that its containers are seen to be well.
//!
//! It is a field of Docker's configs that OCI's do not have. Source: moby's image specification (v1.2), "Healthcheck".

use serde::{Deserialize, Serialize};

/// The field, with Docker's names. Times are nanoseconds; 0 is "not said".
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Healthcheck {
    /// `["NONE"]`, `["CMD", WORD…]`, `["CMD-SHELL", COMMAND]`, or nothing.
    pub test: Option<Vec<String>>,
    /// From the end of one check to the next.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval: Option<i64>,
    /// After which one has failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<i64>,
    /// In which failures do not count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_period: Option<i64>,
    /// In place of the interval until then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_interval: Option<i64>,
    /// How many have to fail one after the other.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retries: Option<i64>,
}

#[derive(Deserialize)]
struct Config {
    config: Option<Settings>,
}

#[derive(Deserialize)]
struct Settings {
    #[serde(rename = "Healthcheck")]
    healthcheck: Option<Healthcheck>,
}

impl Healthcheck {
    /// That of a config; an error, if it has one that makes no sense. Most have none, and are not parsed for it.
    pub(crate) fn of_config(config: &[u8]) -> Result<Option<Self>, String> {
        const NAME: &[u8] = b"\"Healthcheck\"";
        if !config.windows(NAME.len()).any(|window| window == NAME) {
            return Ok(None);
        }
        let config: Config = serde_json::from_slice(config).map_err(|error| error.to_string())?;
        Ok(config.config.and_then(|settings| settings.healthcheck))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_config_may_have_one() {
        let text =
            r#"{"config":{"Cmd":["x"],"Healthcheck":{"Test":["CMD","a"],"Interval":1000000,"Retries":2,"Odd":1}}}"#;
        let found = Healthcheck::of_config(text.as_bytes()).unwrap().unwrap();
        assert_eq!(
            (found.test.unwrap(), found.interval, found.retries),
            (vec!["CMD".into(), "a".into()], Some(1_000_000), Some(2))
        );
        for text in [r#"{"config":{}}"#, r#"{"Healthcheck":{"Test":["NONE"]}}"#] {
            assert_eq!(Healthcheck::of_config(text.as_bytes()), Ok(None), "{text}");
        }
        for text in [r#"{"config":{"Healthcheck":7}}"#, "\"Healthcheck\""] {
            assert!(Healthcheck::of_config(text.as_bytes()).is_err(), "{text}");
        }
    }
}
