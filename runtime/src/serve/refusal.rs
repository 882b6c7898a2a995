//! Why a request gets no answer of a function's: what its client is told, and what the log is.

use hyper::{
    Response, StatusCode,
    header::{ALLOW, CONTENT_TYPE, HeaderValue, RETRY_AFTER},
};
use wasm_exec::http::{Unanswered, front::Counted};

use super::{
    answer::Answer, dev::Detail, function::Unavailable, headers::REQUEST_ID, instance::SendError, path::PathError,
    record::Record, routes::Lost, upload::UploadError,
};

/// Seconds after which a client may try again.
const RETRY_SECONDS: HeaderValue = HeaderValue::from_static("1");

/// Why.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    #[error("it wants a tunnel")]
    Tunnel,
    #[error("{0}")]
    Host(&'static str),
    #[error("{}", .0.explanation())]
    Path(PathError),
    #[error("no route leads there")]
    Lost(Lost),
    #[error("{0}")]
    Upload(#[from] UploadError),
    #[error("{0}")]
    Unavailable(#[from] Unavailable),
    #[error("{0}")]
    Send(#[from] SendError),
    #[error("the function switched to another protocol that nobody asked for")]
    Switched,
    #[error("the function tells the length of its answer more than once")]
    Lengths,
    #[error("its body is encoded for the connection in another way than chunked")]
    Coding,
    #[error("no answer in time")]
    Late,
    /// Of a function within this process.
    #[error("{}", .0.told)]
    Unanswered(Unanswered),
    #[error("{0}")]
    Command(String),
}

impl Refusal {
    fn status(&self) -> StatusCode {
        match self {
            Self::Tunnel | Self::Lost(Lost::Method(_)) => StatusCode::METHOD_NOT_ALLOWED,
            Self::Host(_) | Self::Path(_) | Self::Upload(UploadError::Broken) => StatusCode::BAD_REQUEST,
            Self::Lost(Lost::Host) => StatusCode::MISDIRECTED_REQUEST,
            Self::Lost(Lost::Path) => StatusCode::NOT_FOUND,
            Self::Upload(UploadError::TooLarge) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Upload(UploadError::TooSlow) => StatusCode::REQUEST_TIMEOUT,
            Self::Unavailable(Unavailable::Failed(_)) | Self::Send(_) | Self::Switched => StatusCode::BAD_GATEWAY,
            Self::Lengths | Self::Command(_) => StatusCode::BAD_GATEWAY,
            Self::Coding => StatusCode::NOT_IMPLEMENTED,
            Self::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Late => StatusCode::GATEWAY_TIMEOUT,
            Self::Unanswered(unanswered) => unanswered.status,
        }
    }

    /// The answer in place of a function's.
    pub(super) fn response(&self, mut record: Record, counted: Counted, detail: Detail) -> Response<Answer> {
        let status = self.status();
        record.status(status);
        record.fail(self.to_string());
        let (content_type, text) = match (self, detail) {
            // It is of the request itself.
            (Self::Host(_) | Self::Path(_), Detail::Status) => Detail::Text.answer(status, &self.to_string(), &record),
            _ => detail.answer(status, &self.to_string(), &record),
        };
        let id = HeaderValue::from_str(record.id());
        let mut response = Response::new(Answer::fixed(text, record, counted));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, content_type);
        id.into_iter().for_each(|id| _ = headers.insert(REQUEST_ID, id));
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(RETRY_AFTER, RETRY_SECONDS);
        }
        let allowed = match self {
            Self::Lost(Lost::Method(allowed)) => HeaderValue::from_str(allowed).ok(),
            Self::Tunnel => Some(HeaderValue::from_static("")),
            _ => None,
        };
        allowed.into_iter().for_each(|allowed| _ = headers.insert(ALLOW, allowed));
        response
    }
}
