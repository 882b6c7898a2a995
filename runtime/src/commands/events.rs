//! `events`: what happened, and what happens.

use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};

use crate::{
    cli::{EventsArgs, Filters},
    output::{self, Row, TemplateError, errors::Coded},
    records::{
        events::{Event, EventReader, Subject, Watch},
        host::Host,
    },
    spec::exit_code,
};

/// All that Docker knows; of the last ones there are no events here.
const KEYS: [&str; 14] = [
    "container",
    "daemon",
    "event",
    "image",
    "label",
    "network",
    "scope",
    "type",
    "volume",
    "config",
    "node",
    "plugin",
    "secret",
    "service",
];
/// Objects that are asked for by the beginning of an id or a name.
const OBJECTS: [&str; 8] = ["container", "network", "volume", "config", "node", "plugin", "secret", "service"];

/// `amphora events`: until nobody reads any more, or `--until`.
pub(crate) fn events(host: &Host, args: &EventsArgs) -> Result<u8> {
    let filters = Filters::parse(&args.filter, &KEYS)?;
    let begun = output::now_nanos();
    let moment = |text: &Option<String>| text.as_deref().map(|text| output::parse_moment(text, begun)).transpose();
    let (since, until) = (moment(&args.since)?, moment(&args.until)?);
    // Watched before it is read: what is written in between wakes us.
    let watch = Watch::on(&host.events)?;
    let mut reader = EventReader::open(&host.events, since.is_some())?;
    let mut is_backlog = since.is_some();
    let mut said_lost = false;
    // A template that does not parse is refused before anything happens.
    rendered(args.format.as_deref(), &[])?;
    loop {
        // Before it is read: what happens until then is read.
        let now = output::now_nanos();
        let mut events = reader.read()?;
        if std::mem::take(&mut is_backlog) {
            events.sort_by_key(|event| event.unix_nanos);
        }
        let in_time = |event: &Event| {
            since.is_none_or(|since| event.unix_nanos >= since) && until.is_none_or(|until| event.unix_nanos <= until)
        };
        events.retain(|event| in_time(event) && holds(&filters, event));
        if !events.is_empty() && !output::emit_to_somebody(&rendered(args.format.as_deref(), &events)?)? {
            return Ok(0);
        }
        if reader.has_lost() && !std::mem::replace(&mut said_lost, true) {
            output::note("amphora: events were written faster than they were read: some are not shown");
        }
        let left = until.map(|until| u64::try_from(until - now).map(Duration::from_nanos));
        let longest = match left {
            Some(Err(_)) => return Ok(0),
            // Looked at again now and then, as the clock may be set.
            Some(Ok(left)) => Some(left.min(Duration::from_secs(1)) + Duration::from_millis(1)),
            None => None,
        };
        if !watch.wait(longest, true)? {
            return Ok(0);
        }
    }
}

/// As Docker's daemon decides it.
fn holds(filters: &Filters, event: &Event) -> bool {
    let attribute = |name: &str| event.attributes.get(name).map_or("", String::as_str);
    let begins = |wanted: &str| event.id.starts_with(wanted) || attribute("name").starts_with(wanted);
    let image = attribute(if event.subject == Subject::Image { "name" } else { "image" });
    filters.any("type", |wanted| event.subject.name() == wanted)
        && filters.any("scope", |wanted| wanted == "local")
        && filters.any("daemon", |_| false)
        && filters.any("event", |wanted| is_action(&event.action, wanted))
        && filters.any("image", |wanted| {
            [image, event.id.as_str(), without_tag(image), without_tag(&event.id)].contains(&wanted)
        })
        && OBJECTS.iter().all(|key| filters.any(key, begins))
        && filters.labels(|name| event.attributes.get(name).cloned())
}

/// `health_status` and `exec_start` stand for all that goes on after a colon.
fn is_action(action: &str, wanted: &str) -> bool {
    action == wanted || action.split_once(": ").is_some_and(|(before, _)| before == wanted)
}

fn without_tag(name: &str) -> &str {
    match name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => repository,
        _ => name,
    }
}

/// A line each.
fn rendered(format: Option<&str>, events: &[Event]) -> Result<String> {
    match format {
        None => Ok(events.iter().map(plain_line).collect()),
        Some("json" | "{{json .}}") => {
            let rows: Vec<Row> = events.iter().map(|event| Row::from(message(event))).collect();
            Ok(output::list(Some("json"), &[], &[], &rows)?)
        }
        Some(format) => {
            let rows: Vec<Row> = events.iter().map(|event| Row::from(fields(event))).collect();
            output::list(Some(format), &[], &[], &rows).map_err(|error| match error {
                TemplateError::Syntax(_) => Coded::new(exit_code::NO_TEMPLATE, error.to_string()).into(),
                TemplateError::Apply(_) => error.into(),
            })
        }
    }
}

fn plain_line(event: &Event) -> String {
    let mut line =
        format!("{} {} {} {}", output::rfc3339(event.unix_nanos), event.subject.name(), event.action, event.id);
    let attributes: Vec<String> = event.attributes.iter().map(|(name, value)| format!("{name}={value}")).collect();
    if !attributes.is_empty() {
        line.push_str(&format!(" ({})", attributes.join(", ")));
    }
    format!("{}\n", output::harmless(&line))
}

/// A message of Docker's API.
fn message(event: &Event) -> Value {
    let mut message = json!({
        "Type": event.subject.name(),
        "Action": event.action,
        "Actor": { "ID": event.id, "Attributes": event.attributes },
        "scope": "local",
        "time": event.unix_nanos / 1_000_000_000,
        "timeNano": event.unix_nanos,
    });
    // What there was before there were types.
    if matches!(event.subject, Subject::Container | Subject::Image) {
        message["status"] = json!(event.action);
        message["id"] = json!(event.id);
    }
    if event.subject == Subject::Container {
        message["from"] = json!(event.attributes.get("image"));
    }
    message
}

/// The same by the names that templates have for its fields.
fn fields(event: &Event) -> Value {
    let message = message(event);
    json!({
        "Type": message["Type"],
        "Action": message["Action"],
        "Actor": message["Actor"],
        "Scope": message["scope"],
        "Time": message["time"],
        "TimeNano": message["timeNano"],
        "Status": message.get("status").cloned().unwrap_or_else(|| json!("")),
        "ID": message.get("id").cloned().unwrap_or_else(|| json!("")),
        "From": message.get("from").cloned().unwrap_or_else(|| json!("")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> Event {
        let event = Event::new(Subject::Container, "health_status: healthy", "0123");
        let event = event.with("image", "bb:1").with("name", "web").with("tier", "front\n");
        Event { unix_nanos: 1_704_201_817_123_456_789, ..event }
    }

    #[test]
    fn an_event_is_a_line_as_with_docker() {
        assert_eq!(
            rendered(None, &[event()]).unwrap(),
            "2024-01-02T13:23:37.123456789Z container health_status: healthy 0123 (image=bb:1, name=web, tier=front\\n)\n"
        );
        let json: Value = serde_json::from_str(&rendered(Some("json"), &[event()]).unwrap()).unwrap();
        assert_eq!(
            (&json["from"], &json["time"], &json["Actor"]["ID"]),
            (&json!("bb:1"), &json!(1_704_201_817), &json!("0123"))
        );
        let shown = rendered(Some("{{.Type}} {{.Actor.Attributes.name}} {{.TimeNano}} {{.ID}}"), &[event()]).unwrap();
        assert_eq!(shown, "container web 1704201817123456789 0123\n");
        assert!(rendered(Some("{{.Nonsense"), &[]).is_err());
    }

    #[test]
    fn filters_are_dockers() {
        for (texts, expected) in [
            (&["container=we"][..], true),
            (&["container=01"], true),
            (&["container=eb"], false),
            (&["event=health_status"], true),
            (&["event=health_status: healthy"], true),
            (&["event=health"], false),
            (&["image=bb"], true),
            (&["image=bb:1"], true),
            (&["image=bb:2"], false),
            (&["type=image"], false),
            (&["type=image", "type=container"], true),
            (&["label=tier"], true),
            (&["label=tier=back"], false),
            (&["network=x"], false),
            (&["scope=swarm"], false),
        ] {
            let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
            assert_eq!(holds(&Filters::parse(&texts, &KEYS).unwrap(), &event()), expected, "{texts:?}");
        }
    }
}
