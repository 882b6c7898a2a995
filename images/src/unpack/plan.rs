//! What is to be done with an image's layers: unpack those of a root file system that can run here, store all.

use crate::{
    Digest,
    classify::{self, Class, Head, LayerKind},
    platform::Platform,
};
use oci_spec::image::{Descriptor, DigestAlgorithm, ImageConfiguration, ImageManifest};
use std::collections::HashMap;

/// As many as overlayfs stacks (Linux, fs/overlayfs, OVL_MAX_STACK); builders stop at 127.
pub(crate) const MOST_LAYERS: usize = 500;

/// Why an image's layers are not even fetched.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// A kind of layer that is refused by name.
    #[error("layer {digest}: {reason}")]
    Refused {
        /// The layer.
        digest: Digest,
        /// Why, a sentence.
        reason: &'static str,
    },
    /// More than can be mounted.
    #[error("it has {count} layers; at most {MOST_LAYERS} can be put on top of each other")]
    TooManyLayers {
        /// How many.
        count: usize,
    },
    /// The config does not fit the manifest.
    #[error("the config of the image does not make sense: {0}")]
    Config(String),
}

/// A layer of an image.
#[derive(Debug)]
pub(crate) struct Layer {
    pub(crate) descriptor: Descriptor,
    /// Of a layer that is to be unpacked.
    pub(crate) diff_id: Option<Digest>,
}

/// All layers, each blob once.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) layers: Vec<Layer>,
    /// What a root file system is for; other artifacts need not say.
    pub(crate) platform: Option<Platform>,
}

/// Decides by media types and by the config, a blob as it came.
pub(crate) fn plan(manifest: &ImageManifest, config: &[u8]) -> Result<Plan, PlanError> {
    check_count(manifest.layers().len())?;
    for layer in manifest.layers() {
        if let LayerKind::Refused(reason) = classify::layer_kind(layer.media_type().as_ref()) {
            return Err(PlanError::Refused { digest: layer.digest().clone(), reason });
        }
    }
    let class = classify::classify(manifest, config, &mut |_| Head::NotKnown).class;
    let (platform, diff_ids) = match class {
        Class::Linux | Class::WasmRootfs { .. } => root(config, manifest.layers().len())?,
        _ => (None, Vec::new()),
    };
    let mut layers: Vec<Layer> = Vec::new();
    let mut places: HashMap<&Digest, usize> = HashMap::new();
    let mut diff_ids = diff_ids.into_iter();
    for descriptor in manifest.layers() {
        let diff_id = diff_ids.next();
        match places.get(descriptor.digest()).map(|&at| &layers[at]) {
            None => {
                places.insert(descriptor.digest(), layers.len());
                layers.push(Layer { descriptor: descriptor.clone(), diff_id });
            }
            Some(same) if same.diff_id == diff_id => {}
            Some(_) => {
                let twice = format!("it lists two diff ids for layer {}, which has one", descriptor.digest());
                return Err(PlanError::Config(twice));
            }
        }
    }
    Ok(Plan { layers, platform })
}

fn check_count(count: usize) -> Result<(), PlanError> {
    if count > MOST_LAYERS { Err(PlanError::TooManyLayers { count }) } else { Ok(()) }
}

/// A root file system's platform, and one diff id a layer.
pub(crate) fn root(config: &[u8], layers: usize) -> Result<(Option<Platform>, Vec<Digest>), PlanError> {
    check_count(layers)?;
    let config: ImageConfiguration =
        serde_json::from_slice(config).map_err(|error| PlanError::Config(error.to_string()))?;
    let (os, architecture) = (config.os().to_string(), config.architecture().to_string());
    let platform = Platform::new(&os, &architecture, config.variant().as_deref());
    let listed = config.rootfs().diff_ids();
    if listed.len() != layers {
        return Err(PlanError::Config(format!("it lists {} diff ids for {layers} layers", listed.len())));
    }
    let parse = |text: &String| match text.parse::<Digest>() {
        Ok(diff_id) if *diff_id.algorithm() == DigestAlgorithm::Sha256 => Ok(diff_id),
        Ok(_) => Err(PlanError::Config(format!("diff id `{text}`: only sha256 is supported for unpacked layers"))),
        Err(error) => Err(PlanError::Config(format!("diff id `{text}`: {error}"))),
    };
    Ok((Some(platform), listed.iter().map(parse).collect::<Result<_, _>>()?))
}

/// Whether this machine can run a root file system, natively or as Wasm.
pub(crate) fn runs_here(platform: &Platform) -> bool {
    let host = Platform::host();
    platform.is_wasm() || (&platform.os, &platform.architecture) == (&host.os, &host.architecture)
}
