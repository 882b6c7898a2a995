//! What commands print: tables, templates and JSON over rows that know nothing of how they are shown, and how it is printed.

pub(crate) mod errors;
mod hints;
mod human;
mod print;
pub(crate) mod progress;
mod table;
mod template;
mod time;

pub(crate) use human::{age, binary_size, size};
pub(crate) use print::{
    ask, complain, emit, emit_to_somebody, harmless, harmless_json, harmless_lines, note, print, rewrite, say,
    say_to_somebody,
};
pub(crate) use table::align as aligned;
#[cfg(any(test, fuzzing))]
pub(crate) use template::Template as TestedTemplate;
use template::Template;
pub(crate) use template::{Row, TemplateError};
pub(crate) use time::{civil_utc, clock_utc, now_nanos, parse_moment, parse_rfc3339, rfc3339, rfc3339_seconds};

use serde::Serialize;
use serde_json::{Serializer, Value, ser::PrettyFormatter};

/// A column that a table may have.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Column {
    /// The key in each row, and the name in templates: `RunningFor`.
    pub(crate) field: &'static str,
    /// What stands above it: `CREATED`.
    pub(crate) header: &'static str,
}

/// Renders a list as `--format` asks: nothing is a table of `columns`, `json` an object a line, `table TEMPLATE` a table of
/// the template's cells, anything else the template, once a line.
///
/// `columns` are those shown without a format; `headers` are all that a template may name, with their headers. Rows are
/// objects. The text ends with a newline unless it is empty.
///
/// # Errors
/// A template that does not parse, or that names a field that a row does not have.
pub(crate) fn list(
    format: Option<&str>,
    columns: &[Column],
    headers: &[Column],
    rows: &[Row],
) -> Result<String, TemplateError> {
    match format.unwrap_or("table") {
        "json" => Ok(rows.iter().map(|row| json_line(&row.fields)).collect()),
        "table" => Ok(table::align(&plain_cells(columns, rows))),
        format => match format.strip_prefix("table ") {
            Some(cells) => template_table(cells, headers, rows),
            None => each(&Template::parse_line(format)?, rows),
        },
    }
}

/// Renders what `inspect` shows: without a format (or with `json`) an array as JSON, else the template for each object.
///
/// # Errors
/// As [`list`].
pub(crate) fn objects(format: Option<&str>, objects: &[Value]) -> Result<String, TemplateError> {
    match format {
        None => Ok(indented(objects)),
        Some("json") => Ok(json_line(&Value::Array(objects.to_vec()))),
        // As Docker does: what asked for a line gets one.
        Some(format) if objects.is_empty() => Template::parse(format).map(|_| "\n".to_owned()),
        Some(format) => each(&Template::parse(format)?, &objects.iter().cloned().map(Row::from).collect::<Vec<_>>()),
    }
}

/// Renders one object, for `info` and `version`: `json` on one line, else the template. `None` if there is no format, as
/// the command then has a text of its own.
///
/// # Errors
/// As [`list`].
pub(crate) fn object(format: Option<&str>, object: &Value) -> Result<Option<String>, TemplateError> {
    match format {
        None => Ok(None),
        Some("json") => Ok(Some(json_line(object))),
        Some(format) => each(&Template::parse(format)?, &[Row::from(object.clone())]).map(Some),
    }
}

fn indented(objects: &[Value]) -> String {
    let mut text = Vec::new();
    let mut json = Serializer::with_formatter(&mut text, PrettyFormatter::with_indent(b"    "));
    // Neither a value nor a vector that grows can refuse.
    objects.serialize(&mut json).expect("values have a JSON form");
    text.push(b'\n');
    harmless_json(&String::from_utf8_lossy(&text)).into_owned()
}

fn json_line(value: &Value) -> String {
    format!("{}\n", harmless_json(&value.to_string()))
}

fn each(template: &Template, rows: &[Row]) -> Result<String, TemplateError> {
    let mut text = String::new();
    for row in rows {
        text.push_str(&template.render(row)?);
        text.push('\n');
    }
    Ok(text)
}

fn plain_cells(columns: &[Column], rows: &[Row]) -> Vec<Vec<String>> {
    let header = columns.iter().map(|column| column.header.to_owned()).collect();
    let cells = |row: &Row| columns.iter().map(|column| template::shown(&row.fields[column.field])).collect();
    std::iter::once(header).chain(rows.iter().map(cells)).collect()
}

fn template_table(cells: &str, headers: &[Column], rows: &[Row]) -> Result<String, TemplateError> {
    let template = Template::parse_line(cells)?;
    let header = headers.iter().map(|column| (column.field.to_owned(), column.header.into())).collect();
    let mut lines = vec![template.render_header(&Value::Object(header).into())?];
    for row in rows {
        lines.push(template.render(row)?);
    }
    let split = |line: &String| line.split('\t').map(str::to_owned).collect();
    Ok(table::align(&lines.iter().map(split).collect::<Vec<Vec<String>>>()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const ID: Column = Column { field: "ID", header: "CONTAINER ID" };
    const NAMES: Column = Column { field: "Names", header: "NAMES" };
    const STATUS: Column = Column { field: "Status", header: "STATUS" };

    fn show(format: Option<&str>) -> String {
        let rows = [
            json!({"ID": "0123456789ab", "Names": "web", "Status": "Up 5 seconds"}).into(),
            json!({"ID": "ba9876543210", "Names": "worker", "Status": "Exited (0) 3 days ago"}).into(),
        ];
        list(format, &[ID, STATUS, NAMES], &[ID, NAMES, STATUS], &rows).unwrap()
    }

    #[test]
    fn a_list_is_a_table() {
        let expected = "CONTAINER ID   STATUS                  NAMES\n\
                        0123456789ab   Up 5 seconds            web\n\
                        ba9876543210   Exited (0) 3 days ago   worker\n";
        assert_eq!(show(None), expected);
        assert_eq!(show(Some("table")), expected);
    }

    #[test]
    fn a_list_follows_its_format() {
        let lines = show(Some("json"));
        assert_eq!(lines.lines().count(), 2);
        assert_eq!(serde_json::from_str::<Value>(lines.lines().next().unwrap()).unwrap()["Names"], "web");
        assert_eq!(show(Some("{{.Names}}: {{.ID}}")), "web: 0123456789ab\nworker: ba9876543210\n");
        assert_eq!(
            show(Some(r"table {{.Names}}\t{{.ID}}")),
            "NAMES     CONTAINER ID\nweb       0123456789ab\nworker    ba9876543210\n"
        );
        assert_eq!(show(Some("table {{upper .Names}}")), "NAMES\nWEB\nWORKER\n");
    }

    #[test]
    fn an_empty_list_still_has_its_header() {
        assert_eq!(list(None, &[ID, STATUS, NAMES], &[], &[]).unwrap(), "CONTAINER ID   STATUS    NAMES\n");
        assert_eq!(list(Some("json"), &[ID], &[], &[]).unwrap(), "");
    }

    #[test]
    fn inspected_objects_are_json_or_follow_their_format() {
        let items = [json!({"Id": "a", "State": {"ExitCode": 3}})];
        assert_eq!(
            objects(None, &items).unwrap(),
            "[\n    {\n        \"Id\": \"a\",\n        \"State\": {\n            \"ExitCode\": 3\n        }\n    }\n]\n"
        );
        assert_eq!(objects(Some("{{.State.ExitCode}}"), &items).unwrap(), "3\n");
        assert_eq!(objects(Some("{{json .State}}"), &items).unwrap(), "{\"ExitCode\":3}\n");
        assert_eq!(objects(Some("json"), &[]).unwrap(), "[]\n");
        assert_eq!(object(None, &items[0]).unwrap(), None);
        assert_eq!(object(Some("{{.Id}}"), &items[0]).unwrap().unwrap(), "a\n");
    }
}
