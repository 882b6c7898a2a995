//! The small documents of an image: index, manifest, config. In memory, bounded, each checked against its digest.

use super::{
    Reason,
    session::{Request, Session},
};
use crate::{
    Digest, Selection,
    budget::Hold,
    classify,
    ingest::{self, IngestError},
    platform::{Search, Step, is_index},
    store::documents,
    unpack::plan::{self, Layer},
};
use oci_spec::image::{Descriptor, ImageIndex, ImageManifest, MediaType};
use reqwest::{
    Method,
    header::{self, HeaderMap},
};
use serde::{
    Deserialize,
    de::{DeserializeOwned, IgnoredAny},
};

/// Real ones have a few KiB; registries themselves refuse more than 4 MiB.
const MANIFEST_BYTES: u64 = 4 << 20;
const CONFIG_BYTES: u64 = 8 << 20;

const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json";
const CONTENT_DIGEST: &str = "docker-content-digest";

/// One document as it came.
pub(super) struct Document {
    pub(super) media_type: String,
    pub(super) digest: Digest,
    pub(super) bytes: Vec<u8>,
    /// Its bytes and what they are parsed to, in the budget of the pull.
    _hold: Hold,
}

/// An image without its layers.
pub(super) struct Fetched {
    /// What the reference names first, then nested indexes, then the manifest, then the config.
    documents: Vec<Document>,
    /// Each blob once.
    pub(super) layers: Vec<Layer>,
}

impl Fetched {
    /// In the order in which they are stored: what is referred to comes before what refers to it.
    pub(super) fn documents(&self) -> impl Iterator<Item = &Document> {
        self.documents.iter().rev()
    }

    /// What the reference names: an index or a manifest.
    pub(super) fn top(&self) -> &Document {
        &self.documents[0]
    }
}

/// The fields that tell what a document is.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Kind {
    #[serde(default)]
    schema_version: u32,
    media_type: Option<String>,
    manifests: Option<IgnoredAny>,
}

/// Fetches what the reference names, down to the manifest that the selection wants, and its config.
pub(super) async fn fetch(session: &mut Session<'_>, selection: &Selection) -> Result<Fetched, Reason> {
    let mut documents = vec![top_document(session).await?];
    if is_index(&documents[0].media_type) {
        let mut search = Search::new(selection, documents[0].digest.as_ref());
        search.add(&typed::<ImageIndex>(&documents[0])?)?;
        loop {
            let (nested, descriptor) = match search.next()? {
                Step::Fetch(descriptor) => (true, descriptor),
                Step::Chosen(descriptor) => (false, descriptor),
            };
            let document = document(session, descriptor.digest().as_ref(), Some(descriptor.digest())).await?;
            documents.push(document);
            if !nested {
                break;
            }
            search.add(&typed::<ImageIndex>(&documents[documents.len() - 1])?)?;
        }
    }
    let manifest_document = &documents[documents.len() - 1];
    let manifest: ImageManifest = typed(manifest_document)?;
    let config = config(session, manifest.config()).await?;
    let plan = plan::plan(&manifest, &config.bytes)?;
    if let Some(platform) = &plan.platform {
        selection.check(platform)?;
    }
    documents.push(config);
    Ok(Fetched { documents, layers: plan.layers })
}

/// The digest of what the reference names now.
pub(super) async fn digest(session: &mut Session<'_>) -> Result<String, Reason> {
    if let Some(digest) = &session.reference.digest {
        return Ok(digest.clone());
    }
    let path = format!("manifests/{}", tag(session));
    let request = Request { method: Method::HEAD, ..question(session, &path, ACCEPT, "the manifest") };
    let answer = session.get(&request).await?;
    match announced(answer.headers()) {
        Some(digest) => Ok(digest),
        None => Ok(top_document(session).await?.digest.to_string()),
    }
}

async fn top_document(session: &Session<'_>) -> Result<Document, Reason> {
    match &session.reference.digest {
        Some(text) => {
            let digest = text.parse::<Digest>().map_err(|error| malformed("the digest of the reference", &error))?;
            document(session, text, Some(&digest)).await
        }
        None => document(session, tag(session), None).await,
    }
}

fn tag<'a>(session: &Session<'a>) -> &'a str {
    session.reference.tag.as_deref().unwrap_or("latest")
}

/// One manifest or index. Asked for by tag, it is what the registry says it is, if it says so.
async fn document(session: &Session<'_>, name: &str, expected: Option<&Digest>) -> Result<Document, Reason> {
    let path = format!("manifests/{name}");
    let what = format!("manifest {name}");
    let answer = session.read(&question(session, &path, ACCEPT, &what), MANIFEST_BYTES).await?;
    let (bytes, headers, _hold) = (answer.bytes, answer.headers, answer.hold);
    let digest = match expected {
        Some(expected) => expected.clone(),
        None => match announced(&headers).and_then(|text| text.parse().ok()) {
            Some(announced) => announced,
            None => ingest::digest_of(&bytes).map_err(|error| malformed("the manifest's digest", &error))?,
        },
    };
    check("the manifest", &bytes, &digest)?;
    let media_type = media_type(&bytes, header_text(&headers, header::CONTENT_TYPE.as_str()))?;
    Ok(Document { media_type, digest, bytes, _hold })
}

fn question<'a>(session: &Session<'_>, path: &'a str, accept: &'static str, what: &'a str) -> Request<'a> {
    let time = Some(session.document_time());
    Request { method: Method::GET, path, accept, offset: 0, what, time }
}

/// What a document says that it is, or else what the registry says.
pub(super) fn media_type(bytes: &[u8], content_type: Option<String>) -> Result<String, Reason> {
    let kind: Kind = parse("the manifest", bytes)?;
    let content_type = content_type.map(|text| text.split(';').next().unwrap_or_default().trim().to_owned());
    if let (Some(own), Some(told)) = (&kind.media_type, &content_type)
        && is_index(own) != is_index(told)
    {
        let reason = format!("it says that it is `{own}`, the registry that it is `{told}`");
        return Err(malformed("the manifest", &reason));
    }
    let schema_1 = (kind.schema_version == 1).then_some("application/vnd.docker.distribution.manifest.v1+json");
    let named = schema_1.or(kind.media_type.as_deref()).or(content_type.as_deref()).unwrap_or_default();
    if let Some(reason) = classify::refused_manifest(named) {
        return Err(Reason::Refusal(reason.to_owned()));
    }
    match kind.media_type {
        Some(own) if is_known(&own) => Ok(own),
        Some(own) => Err(malformed("the manifest", &format!("it says that it is `{own}`; expected one of {ACCEPT}"))),
        // Servers of plain files call it text or JSON.
        None => Ok(content_type.filter(|told| is_known(told)).unwrap_or_else(|| {
            let media_type = if kind.manifests.is_some() { MediaType::ImageIndex } else { MediaType::ImageManifest };
            media_type.to_string()
        })),
    }
}

/// Whether a media type is one of those that are asked for.
pub(super) fn is_known(media_type: &str) -> bool {
    ACCEPT.split(", ").any(|known| known == media_type)
}

async fn config(session: &Session<'_>, descriptor: &Descriptor) -> Result<Document, Reason> {
    let path = format!("blobs/{}", descriptor.digest());
    let answer = session.read(&question(session, &path, "*/*", "the config"), CONFIG_BYTES).await?;
    check("the config", &answer.bytes, descriptor.digest())?;
    let (media_type, digest) = (descriptor.media_type().to_string(), descriptor.digest().clone());
    Ok(Document { media_type, digest, bytes: answer.bytes, _hold: answer.hold })
}

fn check(what: &'static str, bytes: &[u8], expected: &Digest) -> Result<(), Reason> {
    ingest::check_bytes(bytes, expected).map_err(|error| match error {
        IngestError::Digest { found, .. } => Reason::Digest { what, expected: expected.to_string(), found },
        other => malformed(what, &other),
    })
}

fn announced(headers: &HeaderMap) -> Option<String> {
    header_text(headers, CONTENT_DIGEST).filter(|text| text.parse::<Digest>().is_ok())
}

fn header_text(headers: &HeaderMap, name: &str) -> Option<String> {
    Some(headers.get(name)?.to_str().ok()?.to_owned())
}

fn parse<T: DeserializeOwned>(what: &'static str, bytes: &[u8]) -> Result<T, Reason> {
    serde_json::from_slice(bytes).map_err(|error| malformed(what, &error))
}

/// A document as what its descriptor, the registry and itself say that it is; they must agree.
fn typed<T: documents::Document>(document: &Document) -> Result<T, Reason> {
    documents::parse(&document.bytes)
        .map_err(|reason| malformed(&format!("the {} {}", T::NAME, document.digest), &reason))
}

fn malformed(what: &str, cause: &dyn std::fmt::Display) -> Reason {
    Reason::Malformed { what: what.to_owned(), cause: cause.to_string() }
}
