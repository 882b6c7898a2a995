//! The small documents of an image: index, manifest, config. In memory, bounded, each checked against its digest.

use super::{
    Reason,
    session::{Request, Session},
};
use crate::{
    Digest, Selection, classify,
    platform::{Search, Step, is_index},
    store::documents,
    unpack::{
        ingest::{self, IngestError},
        plan::{self, Layer},
    },
};
use oci_spec::image::{Descriptor, ImageIndex, ImageManifest};
use reqwest::{Method, Response, header};
use serde::{Deserialize, de::DeserializeOwned};

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
    let request = Request { method: Method::HEAD, path: &path, accept: ACCEPT, offset: 0, what: "the manifest" };
    let response = session.get(&request).await?;
    match announced(&response) {
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
    let request = Request { method: Method::GET, path: &path, accept: ACCEPT, offset: 0, what: &what };
    let response = session.get(&request).await?;
    let announced = announced(&response);
    let content_type = header_text(&response, header::CONTENT_TYPE.as_str());
    let bytes = body(session, response, "the manifest", MANIFEST_BYTES).await?;
    let digest = match expected {
        Some(expected) => expected.clone(),
        None => match announced.and_then(|text| text.parse().ok()) {
            Some(announced) => announced,
            None => ingest::digest_of(&bytes).map_err(|error| malformed("the manifest's digest", &error))?,
        },
    };
    check("the manifest", &bytes, &digest)?;
    let media_type = media_type(&bytes, content_type)?;
    Ok(Document { media_type, digest, bytes })
}

/// What a document says that it is, or else what the registry says.
fn media_type(bytes: &[u8], content_type: Option<String>) -> Result<String, Reason> {
    let kind: Kind = parse("the manifest", bytes)?;
    let content_type = content_type.map(|text| text.split(';').next().unwrap_or_default().trim().to_owned());
    if let (Some(own), Some(told)) = (&kind.media_type, &content_type)
        && is_index(own) != is_index(told)
    {
        let reason = format!("it says that it is `{own}`, the registry that it is `{told}`");
        return Err(malformed("the manifest", &reason));
    }
    let media_type = kind.media_type.or(content_type).unwrap_or_default();
    let schema_1 = (kind.schema_version == 1).then_some("application/vnd.docker.distribution.manifest.v1+json");
    match classify::refused_manifest(schema_1.unwrap_or(&media_type)) {
        Some(reason) => Err(Reason::Refusal(reason.to_owned())),
        None => Ok(media_type),
    }
}

async fn config(session: &Session<'_>, descriptor: &Descriptor) -> Result<Document, Reason> {
    let path = format!("blobs/{}", descriptor.digest());
    let request = Request { method: Method::GET, path: &path, accept: "*/*", offset: 0, what: "the config" };
    let response = session.get(&request).await?;
    let bytes = body(session, response, "the config", CONFIG_BYTES).await?;
    check("the config", &bytes, descriptor.digest())?;
    Ok(Document { media_type: descriptor.media_type().to_string(), digest: descriptor.digest().clone(), bytes })
}

/// A whole body, refused as soon as it is too long.
async fn body(
    session: &Session<'_>,
    mut response: Response,
    what: &'static str,
    limit: u64,
) -> Result<Vec<u8>, Reason> {
    let too_large = || Reason::TooLarge { what, limit };
    if response.content_length().is_some_and(|length| length > limit) {
        return Err(too_large());
    }
    let mut bytes = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if bytes.len() + chunk.len() > usize::try_from(limit).unwrap_or(usize::MAX) => {
                return Err(too_large());
            }
            Ok(Some(chunk)) => bytes.extend_from_slice(&chunk),
            Ok(None) => return Ok(bytes),
            Err(error) if error.is_timeout() => {
                return Err(Reason::TooSlow { what: what.to_owned(), after: session.idle_timeout() });
            }
            Err(error) => {
                let (received, cause) = (bytes.len() as u64, super::session::causes(&error));
                return Err(Reason::CutOff { what: what.to_owned(), received, tries: 1, cause });
            }
        }
    }
}

fn check(what: &'static str, bytes: &[u8], expected: &Digest) -> Result<(), Reason> {
    ingest::check_bytes(bytes, expected).map_err(|error| match error {
        IngestError::Digest { found, .. } => Reason::Digest { what, expected: expected.to_string(), found },
        other => malformed(what, &other),
    })
}

fn announced(response: &Response) -> Option<String> {
    header_text(response, CONTENT_DIGEST).filter(|text| text.parse::<Digest>().is_ok())
}

fn header_text(response: &Response, name: &str) -> Option<String> {
    Some(response.headers().get(name)?.to_str().ok()?.to_owned())
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
