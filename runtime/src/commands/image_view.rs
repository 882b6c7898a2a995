//! An image as `image inspect` shows it: Docker's field names, plus our own.

use images::{Image, Reference};
use serde_json::{Value, json};

use super::view::{DRIVER, comment};
use crate::records::host::Host;

/// `inspect` of an image.
pub(super) fn image_details(host: &Host, image: &Image, names: &[Reference]) -> Value {
    let size = host.store.unpacked_size(image);
    let mut tags: Vec<String> = names.iter().filter(|name| name.tag.is_some()).map(Reference::familiar).collect();
    tags.sort();
    let digest = |name: &Reference| format!("{}@{}", name.familiar_repository(), image.digest);
    let mut digests: Vec<String> = names.iter().map(digest).collect();
    digests.dedup();
    json!({
        "Id": image.digest.to_string(),
        "RepoTags": tags,
        "RepoDigests": digests,
        "Parent": "",
        "Created": image.created,
        "Comment": comment(image),
        "Author": image.config.author().clone().unwrap_or_default(),
        "DockerVersion": "",
        "Kind": image.classification.class.kind(),
        "Rule": image.classification.rule,
        "Os": image.config.os().to_string(),
        "Architecture": image.config.architecture().to_string(),
        "Variant": image.config.variant().clone().unwrap_or_default(),
        "Size": size,
        "VirtualSize": size,
        "StoredSize": image.size_bytes,
        "Config": config(image),
        "RootFS": { "Type": "layers", "Layers": image.config.rootfs().diff_ids() },
        "GraphDriver": { "Name": DRIVER, "Data": layers(host, image) },
        "Metadata": { "LastTagTime": "0001-01-01T00:00:00Z" },
        "Labels": image.config.config().as_ref().and_then(|config| config.labels().clone()),
    })
}

/// The image's own, with what Docker tells of every image.
fn config(image: &Image) -> Value {
    let mut config = json!({
        "Hostname": "", "Domainname": "", "User": "", "AttachStdin": false, "AttachStdout": false, "AttachStderr": false,
        "Tty": false, "OpenStdin": false, "StdinOnce": false, "Env": null, "Cmd": null, "Image": "", "Volumes": null,
        "WorkingDir": "", "Entrypoint": null, "OnBuild": null, "Labels": null,
    });
    let own = image.config.config().as_ref().and_then(|own| serde_json::to_value(own).ok());
    if let (Value::Object(config), Some(Value::Object(own))) = (&mut config, own) {
        config.extend(own);
    }
    if let Ok(Some(healthcheck)) = &image.healthcheck {
        config["Healthcheck"] = json!(healthcheck);
    }
    config
}

fn layers(host: &Host, image: &Image) -> Value {
    let digests = image.config.rootfs().diff_ids().iter().rev().filter_map(|diff_id| diff_id.parse().ok());
    let mut paths = digests.map(|digest| host.store.layer_dir(&digest).display().to_string());
    let upper = paths.next().unwrap_or_default();
    json!({ "MergedDir": "", "WorkDir": "", "UpperDir": upper, "LowerDir": paths.collect::<Vec<_>>().join(":") })
}
