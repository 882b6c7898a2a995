//! Why a request gets no answer of the function's: what its client is told, and what the log is.

use super::answer::Answer;
use crate::{Outcome, RunError};
use bytes::Bytes;
use hyper::{
    Response, StatusCode,
    header::{CONTENT_TYPE, HeaderName, HeaderValue},
};
use std::sync::Arc;
use wasmtime_wasi_http::Error;

/// How a client can name a request to whoever reads the log.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Why.
#[derive(Debug)]
pub(super) enum Failure {
    /// It does not say for which host it is.
    NoHost,
    /// It wants a tunnel.
    Tunnel,
    /// Its body is not what its head says, or no body.
    BodyBroken,
    /// More than a request's body may have.
    BodyTooLarge,
    /// Its body comes too slowly.
    BodyTooSlow,
    /// The function ended otherwise than by itself.
    Ended(Outcome),
    /// It ended without an answer.
    NoAnswer,
    /// It answered with an error.
    Declined(Error),
    /// It did not answer in time; where it was then.
    TooLate(Outcome),
    /// It could not be started.
    NotStarted(RunError),
}

impl Failure {
    /// What kind of failure it is for the client.
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::NoHost | Self::BodyBroken => StatusCode::BAD_REQUEST,
            Self::Tunnel => StatusCode::METHOD_NOT_ALLOWED,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::BodyTooSlow => StatusCode::REQUEST_TIMEOUT,
            // It did not get the memory that it begins with: others have it.
            Self::Ended(Outcome::OutOfMemory { trap, .. }) if trap.is_empty() => StatusCode::SERVICE_UNAVAILABLE,
            Self::Ended(_) | Self::NoAnswer | Self::NotStarted(_) => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Declined(error) => declined(error),
            Self::TooLate(_) => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    /// What is written to the log, if it is not the client's own fault.
    pub(super) fn log(&self) -> Option<String> {
        match self {
            Self::NoHost | Self::Tunnel | Self::BodyBroken | Self::BodyTooLarge | Self::BodyTooSlow => None,
            Self::Ended(outcome) => Some(told(outcome)),
            Self::NoAnswer => Some("the function ended without an answer".to_owned()),
            Self::Declined(error) => Some(format!("the function answered with an error: {error}")),
            Self::TooLate(outcome) => Some(format!("no answer in time\n{}", told(outcome))),
            Self::NotStarted(error) => Some(error.to_string()),
        }
    }

    /// The same, and what is the client's fault, too.
    pub(super) fn told(&self) -> String {
        self.log().unwrap_or_else(|| {
            let fault = match self {
                Self::Tunnel => "it wants a tunnel",
                Self::BodyTooLarge => "the body is larger than may be",
                Self::BodyTooSlow => "the body comes too slowly",
                Self::BodyBroken => "the body is broken off, or no body",
                _ => "it does not say for which host it is",
            };
            fault.to_owned()
        })
    }

    /// The answer in place of the function's.
    pub(super) fn response(&self, id: &RequestId) -> Response<Answer> {
        let status = self.status();
        let mut response = Response::new(Answer::fixed(Bytes::from(format!("{status}\nrequest {id}\n"))));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        if let Ok(id) = HeaderValue::from_str(&id.to_string()) {
            headers.insert(REQUEST_ID, id);
        }
        response
    }
}

/// What somebody else's failure is to our client (RFC 9110, 15.6).
fn declined(error: &Error) -> StatusCode {
    match error {
        Error::HttpRequestBodySize(_) => StatusCode::PAYLOAD_TOO_LARGE,
        Error::DnsTimeout
        | Error::ConnectionTimeout
        | Error::ConnectionReadTimeout
        | Error::ConnectionWriteTimeout
        | Error::HttpResponseTimeout => StatusCode::GATEWAY_TIMEOUT,
        Error::InternalError(_) | Error::ConfigurationError => StatusCode::INTERNAL_SERVER_ERROR,
        _ => StatusCode::BAD_GATEWAY,
    }
}

fn told(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Exited(status) => format!("the function exited with {status} and without an answer"),
        Outcome::Trapped { trap, backtrace } => format!("{trap}\n{backtrace}"),
        Outcome::TimedOut { backtrace } => backtrace.clone(),
        Outcome::OutOfFuel => "wasm trap: all fuel consumed".to_owned(),
        Outcome::OutOfMemory { limit_bytes, wanted_bytes, trap, backtrace } => format!(
            "out of memory: {wanted_bytes} bytes would be in use by all requests together, the limit is {limit_bytes}\n{trap}\n{backtrace}"
        ),
    }
}

/// What a request is called in the log, and for its client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum RequestId {
    /// It tells nothing of how many there are.
    Drawn(u64),
    /// Of whoever accepted it.
    Given(Arc<str>),
}

impl std::fmt::Display for RequestId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Drawn(number) => write!(f, "{number:016x}"),
            Self::Given(id) => f.write_str(id),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_failed_elsewhere_is_told_apart_from_what_failed_here() {
        for (error, status) in [
            (Error::ConnectionRefused, 502),
            (Error::TlsCertificateError, 502),
            (Error::ConnectionTimeout, 504),
            (Error::HttpRequestBodySize(None), 413),
            (Error::InternalError(Some("x".to_owned())), 500),
        ] {
            assert_eq!(Failure::Declined(error).status().as_u16(), status);
        }
    }

    #[test]
    fn a_backtrace_is_for_the_log_alone() {
        let outcome = Outcome::Trapped { trap: "wasm trap: unreachable".to_owned(), backtrace: "0: secret".to_owned() };
        let failure = Failure::Ended(outcome);
        assert!(failure.log().unwrap().contains("secret"));
        let response = failure.response(&RequestId::Drawn(0xab));
        assert_eq!(response.headers()["x-request-id"], "00000000000000ab");
        // All that is not chosen here: the status line and the id.
        assert_eq!(hyper::body::Body::size_hint(response.body()).exact(), Some(51));
    }
}
