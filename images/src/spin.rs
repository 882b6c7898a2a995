//! What a Spin application is made of, as its description in the image says: the "locked application" of Spin (spin-locked-app,
//! version 0 and 1). Pure: takes bytes.
//!
//! A program of it runs here if it is the only one that answers HTTP requests and nothing else starts the others, or if it is chosen from
//! those that answer; what it imports is compared with what there is as for any program.

use oci_spec::image::Digest;
use serde::Deserialize;
use serde_json::{Map, Value};

/// What is part of it and read here.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct Application {
    /// Of the description.
    pub spin_lock_version: u64,
    /// What starts its programs.
    pub triggers: Vec<Trigger>,
    /// Its programs.
    pub components: Vec<Component>,
    /// What whoever runs it has to know of.
    pub must_understand: Vec<String>,
    /// What whoever runs it has to have, by name: `required` or `optional`.
    pub host_requirements: Map<String, Value>,
}

/// The newest description that is understood.
const NEWEST_VERSION: u64 = 1;
/// What a trigger may say that calls its component: all the same.
const EXECUTORS: [&str; 2] = ["http", "spin"];

/// What starts a program.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct Trigger {
    /// `http`, `redis`, `cron` and others.
    pub trigger_type: String,
    /// Of a form of its own for each type.
    pub trigger_config: Map<String, Value>,
}

/// A program.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct Component {
    /// By which triggers name it.
    pub id: String,
    /// Where its bytes are.
    pub source: Source,
    /// Its environment.
    pub env: Map<String, Value>,
    /// Files that it expects to find.
    pub files: Vec<Value>,
    /// Other components that it is to be put together with.
    pub dependencies: Map<String, Value>,
}

/// Where a program's bytes are.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct Source {
    /// Of the layer.
    pub digest: Option<String>,
}

/// The program that runs here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Served {
    /// Its digest.
    pub program: String,
    /// `NAME=value`
    pub env: Vec<String>,
}

impl Application {
    /// Reads a description.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        serde_json::from_slice(bytes).map_err(|error| format!("its description cannot be read: {error}"))
    }

    /// What starts what, a line for each trigger: `http /hello/...: component hello`.
    pub fn describe(&self) -> Vec<String> {
        self.triggers.iter().map(Trigger::describe).collect()
    }

    /// The components that answer HTTP requests, sorted.
    pub fn answering(&self) -> Vec<&str> {
        let mut answering: Vec<&str> = self.http().filter_map(Trigger::component).collect();
        answering.sort_unstable();
        answering.dedup();
        answering
    }

    /// As if it had this component alone, and nothing but requests started it.
    ///
    /// # Errors
    /// None of this name answers requests; which do.
    pub fn only(&self, component: &str) -> Result<Self, String> {
        let triggers =
            self.http().filter(|trigger| trigger.component() == Some(component)).cloned().collect::<Vec<_>>();
        if triggers.is_empty() {
            let answering = match self.answering().join(", ") {
                none if none.is_empty() => "none does".to_owned(),
                some => format!("those that do are {some}"),
            };
            return Err(format!("no component `{component}` of it answers HTTP requests; {answering}"));
        }
        let components = self.components.iter().filter(|found| found.id == component).cloned().collect();
        Ok(Self { triggers, components, ..self.clone() })
    }

    /// Digests of all programs that it has here.
    pub fn programs(&self) -> impl Iterator<Item = String> {
        self.components.iter().filter_map(|component| Some(component.program()?.to_string()))
    }

    /// Those that answer whoever asks: a private route is for the application's others alone.
    fn http(&self) -> impl Iterator<Item = &Trigger> {
        self.triggers.iter().filter(|trigger| trigger.trigger_type == "http" && !trigger.is_private())
    }

    /// What it asks of whoever runs it, and is not here.
    fn demands(&self) -> Vec<String> {
        let mut demands = Vec::new();
        if self.spin_lock_version > NEWEST_VERSION {
            demands.push(format!(
                "its description is of version {}, and up to {NEWEST_VERSION} is understood",
                self.spin_lock_version
            ));
        }
        let unknown = self.must_understand.iter().filter(|what| *what != "host_requirements");
        demands.extend(unknown.map(|what| format!("it has to be understood what `{what}` is, and is not")));
        let required = self.host_requirements.iter().filter(|(_, how)| *how != "optional");
        demands.extend(required.map(|(what, how)| format!("it requires `{what}` ({how}), which is not here")));
        let foreign = self.http().filter_map(Trigger::foreign_executor);
        demands.extend(foreign.map(|executor| format!("nothing here calls components by the executor {executor}")));
        demands
    }

    /// The one program that answers HTTP requests.
    ///
    /// # Errors
    /// All that keeps it from running here.
    pub fn served(&self) -> Result<Served, String> {
        let mut reasons: Vec<String> = Vec::new();
        let foreign = self.triggers.iter().filter(|trigger| trigger.trigger_type != "http");
        reasons.extend(
            foreign.map(|trigger| format!("nothing here does what its trigger `{}` does", trigger.trigger_type)),
        );
        reasons.extend(self.demands());
        let nameless = self.http().filter(|trigger| trigger.component().is_none());
        reasons.extend(nameless.map(|trigger| format!("a trigger of it names no component ({})", trigger.describe())));
        let served = self.answering();
        let component = match served.as_slice() {
            [one] => self.components.iter().find(|component| component.id == *one),
            [] => None,
            several => {
                reasons.push(format!(
                    "{} of its components answer requests ({}), and a container runs one of them",
                    several.len(),
                    several.join(", ")
                ));
                None
            }
        };
        if served.is_empty() {
            reasons.push("none of its components answers HTTP requests from outside".to_owned());
        } else if served.len() == 1 && component.is_none() {
            reasons.push(format!("it has no component `{}`, which its trigger names", served[0]));
        }
        reasons.extend(component.into_iter().flat_map(Component::reasons));
        match component.and_then(|component| Some((component, component.program()?))) {
            Some((component, program)) if reasons.is_empty() => {
                Ok(Served { program: program.to_string(), env: component.environment() })
            }
            _ => Err(reasons.join("; ")),
        }
    }
}

impl Trigger {
    fn component(&self) -> Option<&str> {
        self.trigger_config.get("component").and_then(Value::as_str)
    }

    fn is_private(&self) -> bool {
        self.trigger_config.get("route").and_then(|route| route.get("private")).is_some_and(|private| private != false)
    }

    fn foreign_executor(&self) -> Option<&Value> {
        let executor = self.trigger_config.get("executor")?.get("type")?;
        Some(executor).filter(|executor| !executor.as_str().is_some_and(|name| EXECUTORS.contains(&name)))
    }

    fn describe(&self) -> String {
        let route = match self.trigger_config.get("route") {
            Some(Value::String(route)) => format!(" {route}"),
            Some(other) => format!(" {other}"),
            None => String::new(),
        };
        format!("{}{route}: component {}", self.trigger_type, self.component().unwrap_or("without a name"))
    }
}

impl Component {
    fn program(&self) -> Option<Digest> {
        self.source.digest.as_ref()?.parse().ok()
    }

    /// What keeps it from running here.
    fn reasons(&self) -> Vec<String> {
        let of = |what: String| format!("component {} {what}", self.id);
        let mut reasons = Vec::new();
        if self.program().is_none() {
            reasons.push(of("has no program in the image".to_owned()));
        }
        let odd = self.env.iter().filter(|(_, value)| !value.is_string());
        reasons.extend(odd.map(|(name, value)| of(format!("has a variable {name} that is no text: {value}"))));
        if !self.files.is_empty() {
            reasons.push(of(format!("expects {} files of the application, which are not mounted", self.files.len())));
        }
        if !self.dependencies.is_empty() {
            let names: Vec<&str> = self.dependencies.keys().map(String::as_str).collect();
            reasons.push(of(format!("is to be put together with others ({})", names.join(", "))));
        }
        reasons
    }

    fn environment(&self) -> Vec<String> {
        self.env.iter().filter_map(|(name, value)| Some(format!("{name}={}", value.as_str()?))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn digest() -> String {
        format!("sha256:{}", "a".repeat(64))
    }

    fn application(triggers: &Value, component: &Value) -> Application {
        let mut hello = json!({ "id": "hello", "source": { "content_type": "application/wasm", "digest": digest() },
            "env": { "A": "b" }, "metadata": { "description": "x" } });
        hello.as_object_mut().unwrap().extend(component.as_object().unwrap().clone());
        let text =
            json!({ "spin_lock_version": 1, "metadata": { "name": "x" }, "triggers": triggers, "components": [hello] });
        Application::parse(text.to_string().as_bytes()).unwrap()
    }

    fn http(component: &str) -> Value {
        json!({ "id": "t", "trigger_type": "http", "trigger_config": { "component": component, "route": "/..." } })
    }

    #[test]
    fn the_only_component_behind_http_is_served() {
        let found = application(&json!([http("hello")]), &json!({}));
        assert_eq!(found.served().unwrap(), Served { program: digest(), env: vec!["A=b".to_owned()] });
        assert_eq!(found.describe(), ["http /...: component hello"]);
        // At two routes it is still one.
        assert!(application(&json!([http("hello"), http("hello")]), &json!({})).served().is_ok());
    }

    #[test]
    fn one_of_several_is_chosen() {
        let redis = json!({ "trigger_type": "redis", "trigger_config": { "component": "hello" } });
        let found = application(&json!([http("hello"), http("other"), redis]), &json!({}));
        assert_eq!((found.answering(), found.programs().count()), (vec!["hello", "other"], 1));
        let chosen = found.only("hello").unwrap();
        assert_eq!(chosen.served().unwrap().program, digest());
        assert_eq!(chosen.describe(), ["http /...: component hello"]);
        assert!(found.only("other").unwrap().served().unwrap_err().contains("no component `other`"));
        assert!(found.only("moon").unwrap_err().contains("those that do are hello, other"));
        assert!(Application::default().only("moon").unwrap_err().contains("none does"));
    }

    #[test]
    fn each_thing_that_keeps_it_from_running_is_named() {
        let redis = json!({ "trigger_type": "redis", "trigger_config": { "component": "hello", "channel": "x" } });
        for (triggers, component, reason) in [
            (json!([http("hello"), redis.clone()]), json!({}), "trigger `redis`"),
            (json!([redis]), json!({}), "none of its components answers"),
            (json!([]), json!({}), "none of its components answers"),
            (json!([http("hello"), http("other")]), json!({}), "2 of its components answer requests (hello, other)"),
            (json!([http("other")]), json!({}), "no component `other`"),
            (json!([http("hello")]), json!({ "files": [{ "path": "/x" }] }), "expects 1 files"),
            (json!([http("hello")]), json!({ "dependencies": { "a:b/c": {} } }), "put together with others (a:b/c)"),
            (json!([http("hello")]), json!({ "source": { "source": "file:///x" } }), "has no program in the image"),
            (json!([http("hello")]), json!({ "source": { "digest": "../../etc" } }), "has no program in the image"),
        ] {
            let told = application(&triggers, &component).served().unwrap_err();
            assert!(told.contains(reason), "{reason}: {told}");
        }
        let with = |key: &str, value: Value| {
            let mut found = json!({ "triggers": [http("hello")], "components": [{ "id": "hello", "source": { "digest": digest() } }] });
            found[key] = value;
            Application::parse(found.to_string().as_bytes()).unwrap().served()
        };
        let private = json!([{ "trigger_type": "http", "trigger_config": { "component": "hello", "route": { "private": true } } }]);
        let wagi = json!([{ "trigger_type": "http", "trigger_config": { "component": "hello", "executor": { "type": "wagi" } } }]);
        for (key, value, reason) in [
            ("triggers", private, "none of its components answers"),
            ("triggers", wagi, "the executor \"wagi\""),
            ("spin_lock_version", json!(99), "of version 99"),
            ("host_requirements", json!({ "local_service_chaining": "required" }), "requires `local_service_chaining`"),
        ] {
            let told = with(key, value).unwrap_err();
            assert!(told.contains(reason), "{reason}: {told}");
        }
        assert!(with("host_requirements", json!({ "local_service_chaining": "optional" })).is_ok());
        assert!(Application::parse(b"{").unwrap_err().contains("cannot be read"));
        let strange = Application::parse(br#"{"must_understand":["host_requirements","moons"]}"#).unwrap();
        assert!(strange.served().unwrap_err().contains("`moons`"));
    }
}
