//! The functions of a file as Knative has them: a Service for each, as YAML, with a remark for what is not the same there.

use std::{collections::BTreeSet, fmt::Write};

use serde_json::{Value, json};

use super::config::{Config, FunctionConfig, RouteConfig};
use crate::spec::mounts::MountKind;

const API: &str = "serving.knative.dev/v1";
/// What Knative takes for a request at most, unless its own configuration says more.
const LONGEST_SECONDS: u64 = 600;

/// One document for each function.
pub(crate) fn documents(config: &Config) -> String {
    let mut text = String::from(
        "# Written by `amphora serve export knative`; docs/scale.md says what a cluster needs for it.\n# Routes lead to a function's own host there; what leads to it here:\n",
    );
    for route in &config.routes {
        _ = writeln!(text, "#   {}", sentence(route.get_ref()));
    }
    let mut taken = BTreeSet::new();
    for (name, function) in &config.functions {
        let service = service(&free_name(name.as_str(), &mut taken), function);
        text.push_str("---\n");
        for remark in remarks(function) {
            _ = writeln!(text, "# {remark}");
        }
        write_mapping(&mut text, &service, 0);
    }
    text
}

fn sentence(route: &RouteConfig) -> String {
    let host = route.host.as_ref().map_or("any host".to_owned(), |host| format!("host {host}"));
    let shares: Vec<String> = match route.shares().as_slice() {
        [(only, _)] => vec![(*only).to_owned()],
        several => several.iter().map(|(name, weight)| format!("{name} (weight {weight})")).collect(),
    };
    let exactly = if route.exact { " exactly" } else { "" };
    format!("{host}, {}{exactly}: {}", route.path.shape(), shares.join(", "))
}

/// Small letters, digits and `-`, beginning with a letter, as a part of a host's name has to; with a number where others have that name.
fn free_name(name: &str, taken: &mut BTreeSet<String>) -> String {
    let small: String =
        name.to_ascii_lowercase().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let base = match small.trim_matches('-') {
        plain if plain.starts_with(|c: char| c.is_ascii_lowercase()) => plain.to_owned(),
        other => format!("function-{other}").trim_end_matches('-').to_owned(),
    };
    let numbered = (2..).map(|number| format!("{base}-{number}"));
    let free = std::iter::once(base.clone()).chain(numbered).find(|name| taken.insert(name.clone()));
    free.unwrap_or(base)
}

/// Values in the order in which they are to be read.
type Mapping = Vec<(&'static str, Node)>;

enum Node {
    Scalar(Value),
    Mapping(Mapping),
    /// By names that are not known beforehand.
    Named(Vec<(String, Value)>),
    List(Vec<Mapping>),
}

fn scalar(value: impl Into<Value>) -> Node {
    Node::Scalar(value.into())
}

fn service(name: &str, function: &FunctionConfig) -> Mapping {
    let seconds = (function.timeout.0.div_ceil(1000)).clamp(1, LONGEST_SECONDS);
    let annotations = vec![
        ("autoscaling.knative.dev/min-scale".to_owned(), function.min.to_string().into()),
        ("autoscaling.knative.dev/max-scale".to_owned(), function.max.to_string().into()),
    ];
    let mut spec = vec![];
    if let Some(concurrency) = function.concurrency {
        spec.push(("containerConcurrency", scalar(concurrency)));
    }
    spec.push(("timeoutSeconds", scalar(seconds)));
    spec.push(("containers", Node::List(vec![container(function)])));
    let volumes = tmpfs_names(function).into_iter();
    let volumes: Vec<Mapping> = volumes
        .map(|(name, _)| vec![("name", scalar(name)), ("emptyDir", Node::Mapping(vec![("medium", scalar("Memory"))]))])
        .collect();
    if !volumes.is_empty() {
        spec.push(("volumes", Node::List(volumes)));
    }
    let metadata = Node::Mapping(vec![("annotations", Node::Named(annotations))]);
    let template = Node::Mapping(vec![("metadata", metadata), ("spec", Node::Mapping(spec))]);
    vec![
        ("apiVersion", scalar(API)),
        ("kind", scalar("Service")),
        ("metadata", Node::Mapping(vec![("name", scalar(name))])),
        ("spec", Node::Mapping(vec![("template", template)])),
    ]
}

fn container(function: &FunctionConfig) -> Mapping {
    let mut container = vec![("image", scalar(function.image.as_str()))];
    if let Some(entrypoint) = &function.entrypoint {
        container.push(("command", scalar(entrypoint.as_slice())));
    }
    if !function.command.is_empty() {
        container.push(("args", scalar(function.command.as_slice())));
    }
    if let Some(folder) = &function.workdir {
        container.push(("workingDir", scalar(folder.as_str())));
    }
    container.push(("ports", Node::List(vec![vec![("containerPort", scalar(function.port))]])));
    let env: Vec<Mapping> = function
        .env
        .iter()
        .map(|(name, value)| vec![("name", scalar(name.as_str())), ("value", scalar(value.as_str()))])
        .collect();
    if !env.is_empty() {
        container.push(("env", Node::List(env)));
    }
    let mut limits = Vec::new();
    limits.extend(function.memory.0.map(|bytes| ("memory".to_owned(), bytes.to_string().into())));
    limits.extend(function.cpus.0.map(|thousandths| ("cpu".to_owned(), format!("{thousandths}m").into())));
    if !limits.is_empty() {
        container.push(("resources", Node::Mapping(vec![("limits", Node::Named(limits))])));
    }
    let mut security = Vec::new();
    if function.read_only {
        security.push(("readOnlyRootFilesystem", scalar(true)));
    }
    if let Some(user) = uid(function) {
        security.push(("runAsUser", scalar(user)));
    }
    if !security.is_empty() {
        container.push(("securityContext", Node::Mapping(security)));
    }
    let mounts: Vec<Mapping> = tmpfs_names(function)
        .into_iter()
        .map(|(name, target)| vec![("name", scalar(name)), ("mountPath", scalar(target))])
        .collect();
    if !mounts.is_empty() {
        container.push(("volumeMounts", Node::List(mounts)));
    }
    container
}

/// A user's number; names are the image's own.
fn uid(function: &FunctionConfig) -> Option<u32> {
    function.user.as_deref()?.split(':').next()?.parse().ok()
}

fn tmpfs_names(function: &FunctionConfig) -> Vec<(String, String)> {
    let mounts = function.tmpfs.iter().enumerate();
    mounts.map(|(number, tmpfs)| (format!("tmpfs-{number}"), tmpfs.0.target.display().to_string())).collect()
}

/// What a Service does not say, or another way.
fn remarks(function: &FunctionConfig) -> Vec<String> {
    let mut remarks = Vec::new();
    if function.cgi {
        remarks.push("cgi = true: a command does not listen; something in its image has to serve it there".to_owned());
    }
    for volume in &function.volumes {
        let what = match &volume.spec.kind {
            MountKind::Bind { .. } => "a folder of this machine: make it a ConfigMap, a Secret or part of the image",
            _ => "a volume of this machine: make it a PersistentVolumeClaim",
        };
        remarks.push(format!("left out: the mount at {}, {what}", volume.spec.target.display()));
    }
    if function.pids.0.is_some() {
        remarks.push("left out: pids; a node's kubelet limits them (podPidsLimit)".to_owned());
    }
    if let Some(network) = function.network.as_deref().filter(|network| *network != "none") {
        remarks.push(format!("left out: network = {}; a pod is on its cluster's", json!(network)));
    }
    if function.network.as_deref().is_none_or(|network| network == "none") {
        remarks.push("here it reaches no network; there a NetworkPolicy has to say so".to_owned());
    }
    if function.user.is_some() && uid(function).is_none() {
        remarks.push("left out: user, as it is a name and not a number".to_owned());
    }
    if function.timeout.0 > LONGEST_SECONDS * 1000 {
        remarks.push(format!("timeout: more than {LONGEST_SECONDS} s take a setting of Knative's own"));
    }
    if let Some(platform) = &function.platform {
        remarks.push(format!("left out: platform = {}; a node chooses by what it is", json!(platform)));
    }
    remarks
}

/// Scalars are JSON, which YAML 1.2 has as a part of it: so nothing of a value is taken for something else.
fn write_mapping(text: &mut String, mapping: &Mapping, depth: usize) {
    for (at, (key, node)) in mapping.iter().enumerate() {
        // The first one of a list's entry stands behind its dash.
        let indent = if at == 0 && text.ends_with("- ") { String::new() } else { "  ".repeat(depth) };
        match node {
            Node::Scalar(value) => _ = writeln!(text, "{indent}{key}: {value}"),
            Node::Mapping(inner) => {
                _ = writeln!(text, "{indent}{key}:");
                write_mapping(text, inner, depth + 1);
            }
            Node::Named(pairs) => {
                _ = writeln!(text, "{indent}{key}:");
                let inner = "  ".repeat(depth + 1);
                pairs.iter().for_each(|(name, value)| _ = writeln!(text, "{inner}{name}: {value}"));
            }
            Node::List(entries) => {
                _ = writeln!(text, "{indent}{key}:");
                for entry in entries {
                    _ = write!(text, "{}- ", "  ".repeat(depth));
                    write_mapping(text, entry, depth + 1);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_parts_of_hosts_and_not_the_same() {
        let mut taken = BTreeSet::new();
        let names = ["a_b", "A.b", "9lives", "a-b-"].map(|name| free_name(name, &mut taken));
        assert_eq!(names, ["a-b", "a-b-2", "function-9lives", "a-b-3"]);
    }

    #[test]
    fn a_function_is_a_service() {
        let config = Config::parse(
            "[functions.Web_1]\nimage = \"registry/web:1\"\nentrypoint = [\"sh\", \"-c\"]\ncommand = [\"exec: \\\"x\\\"\"]\nmemory = \"64m\"\n\
             cpus = 0.5\nmin = 1\nmax = 3\nconcurrency = 7\nenv = { A = \"1\", B = \"#: no\" }\ntmpfs = [\"/run\"]\nuser = \"1000:1000\"\nread_only = true\n\
             volumes = [\"/srv:/data:ro\"]\ntimeout = \"1500ms\"\nport = 9000\n\
             [[routes]]\nhost = \"example.com\"\npath = \"/api\"\nfunction = \"Web_1\"\n",
        )
        .unwrap();
        let text = documents(&config);
        let (remarks, service) = text.split_once("---\n").unwrap();
        assert!(remarks.ends_with("#   host example.com, /api: Web_1\n"), "{remarks}");
        let expected = r##"# left out: the mount at /data, a folder of this machine: make it a ConfigMap, a Secret or part of the image
# here it reaches no network; there a NetworkPolicy has to say so
apiVersion: "serving.knative.dev/v1"
kind: "Service"
metadata:
  name: "web-1"
spec:
  template:
    metadata:
      annotations:
        autoscaling.knative.dev/min-scale: "1"
        autoscaling.knative.dev/max-scale: "3"
    spec:
      containerConcurrency: 7
      timeoutSeconds: 2
      containers:
      - image: "registry/web:1"
        command: ["sh","-c"]
        args: ["exec: \"x\""]
        ports:
        - containerPort: 9000
        env:
        - name: "A"
          value: "1"
        - name: "B"
          value: "#: no"
        resources:
          limits:
            memory: "67108864"
            cpu: "500m"
        securityContext:
          readOnlyRootFilesystem: true
          runAsUser: 1000
        volumeMounts:
        - name: "tmpfs-0"
          mountPath: "/run"
      volumes:
      - name: "tmpfs-0"
        emptyDir:
          medium: "Memory"
"##;
        assert_eq!(service, expected);
    }
}
