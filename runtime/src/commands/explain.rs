//! `image explain`: what an image is, by which rule, and what its program would need.

use anyhow::{Context, Result};
use images::Image;
use serde_json::{Map, Value, json};

use super::image::selection;
use crate::{
    cli::{ExplainArgs, ExplainFormat},
    output,
    records::host::Host,
    spec::Workload,
};

/// `amphora image explain`.
pub(crate) fn explain(host: &Host, args: &ExplainArgs) -> Result<u8> {
    let selection = selection(args.platform.as_deref(), args.prefer)?;
    let image = host.store.resolve(&args.image, &selection)?;
    let image = image.with_context(|| format!("image {0} is not in the store; amphora pull {0}", args.image))?;
    let fields = fields(host, &image)?;
    match args.format {
        ExplainFormat::Json => {
            output::say(&output::harmless_json(&serde_json::to_string_pretty(&Map::from_iter(fields))?))
        }
        ExplainFormat::Text => output::print(&text(&fields)),
    }?;
    Ok(0)
}

/// Names and values, in the order in which they are shown.
type Fields = Vec<(String, Value)>;

fn fields(host: &Host, image: &Image) -> Result<Fields> {
    let classification = &image.classification;
    let mut fields = Fields::new();
    let mut put = |name: &str, value: Value| fields.push((name.to_owned(), value));
    put("name", json!(image.reference.as_ref().map(|reference| reference.familiar())));
    put("digest", json!(image.digest.to_string()));
    put("kind", json!(classification.class.kind()));
    put("rule", json!(classification.rule));
    put("reason", json!(classification.reason));
    put("warnings", json!(classification.warnings));
    put("platform", json!(platform(host, image)?));
    put("size_bytes", json!(image.size_bytes));
    put("layers", json!(layers(image)));
    if let Some(Ok(application)) = &image.spin {
        put("triggers", json!(application.describe()));
        if application.answering().len() > 1 {
            let components = application.answering().into_iter().map(|name| component(host, image, name));
            put("components", json!(components.collect::<Result<Vec<_>>>()?));
        }
    }
    let workload = match Workload::of(image) {
        Err(error) => {
            put("runs_here", json!(false));
            put("because", json!(error.to_string()));
            return Ok(fields);
        }
        Ok(workload) => workload,
    };
    put("command", json!(command(image, &workload)));
    for (name, value) in workload.behaviour().explain(host, image)? {
        put(name, value);
    }
    Ok(fields)
}

/// Whether a component of an application runs by itself, or what keeps it from that.
fn component(host: &Host, image: &Image, name: &str) -> Result<String> {
    let (image, workload) = match Workload::chosen(image, Some(name)) {
        Err(why) => return Ok(format!("{name}: {why}")),
        Ok(chosen) => chosen,
    };
    let fields = workload.behaviour().explain(host, &image)?;
    let value = |wanted: &str| fields.iter().find(|(name, _)| *name == wanted).map(|(_, value)| value);
    if value("runs_here") == Some(&json!(true)) {
        return Ok(format!("{name}: runs here, with --component {name}"));
    }
    let missing = value("missing").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    Ok(match missing.collect::<Vec<_>>().join(", ") {
        none if none.is_empty() => {
            format!("{name}: does not run here, as it answers no HTTP requests of a known version")
        }
        missing => format!("{name}: does not run here, as it imports {missing}"),
    })
}

/// From the config blob itself: an artifact's is no image config, but may name a platform all the same.
fn platform(host: &Host, image: &Image) -> Result<Option<String>> {
    let config: Value = serde_json::from_reader(host.store.blob(image.manifest.config().digest())?).unwrap_or_default();
    let field = |name: &str| config.get(name).and_then(Value::as_str);
    Ok(field("os").zip(field("architecture")).map(|(os, architecture)| format!("{os}/{architecture}")))
}

fn layers(image: &Image) -> Vec<String> {
    image.manifest.layers().iter().map(|layer| format!("{} {} bytes", layer.media_type(), layer.size())).collect()
}

fn command(image: &Image, workload: &Workload) -> Vec<String> {
    let config = image.config.config().clone().unwrap_or_default();
    let entrypoint = config.entrypoint().clone().filter(|words| !words.is_empty());
    let entrypoint = entrypoint.unwrap_or_else(|| workload.behaviour().default_entrypoint(image));
    [entrypoint, config.cmd().clone().unwrap_or_default()].concat()
}

/// `name: value`, one field a line; a list takes a line for each item.
fn text(fields: &Fields) -> String {
    let mut text = String::new();
    for (name, value) in fields {
        match value {
            Value::Null => {}
            Value::Array(items) if items.iter().all(Value::is_string) && name != "command" => {
                text.extend(items.iter().map(|item| format!("{name}: {}\n", item.as_str().unwrap_or_default())));
            }
            Value::String(string) => text.push_str(&format!("{name}: {string}\n")),
            other => text.push_str(&format!("{name}: {other}\n")),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_has_one_field_a_line() {
        let fields =
            [("kind", json!("wasm")), ("imports", json!(["a", "b"])), ("rule", json!(1)), ("name", Value::Null)];
        let fields = fields.map(|(name, value)| (name.to_owned(), value)).to_vec();
        assert_eq!(text(&fields), "kind: wasm\nimports: a\nimports: b\nrule: 1\n");
    }
}
