//! `amphora serve --dev`: what went wrong is told to the client, too, as text or as a page that looks again by itself.

use hyper::{
    HeaderMap, StatusCode,
    header::{ACCEPT, HeaderValue},
};

use super::record::Record;

/// How much clients are told of what went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Detail {
    /// The status: the rest is for the log alone.
    Status,
    Text,
    Page,
}

impl Detail {
    /// What this client is told.
    pub(super) fn of(is_dev: bool, headers: &HeaderMap) -> Self {
        let mut accepted = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
        match is_dev {
            false => Self::Status,
            true if accepted.any(|value| value.contains("text/html")) => Self::Page,
            true => Self::Text,
        }
    }

    /// The answer's type and text. `why`: what the log has.
    pub(super) fn answer(self, status: StatusCode, why: &str, record: &Record) -> (HeaderValue, String) {
        const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
        const PAGE: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");
        let mut lines = vec![why.to_owned()];
        lines.extend(record.origin().map(|origin| format!("function {origin}")));
        // Why a start failed is what led to the rest.
        lines.extend(record.last_error().filter(|error| !why.contains(error)).map(|error| format!("before: {error}")));
        lines.push(format!("request {}", record.id()));
        match self {
            Self::Status => (TEXT, format!("{status}\nrequest {}\n", record.id())),
            Self::Text => (TEXT, format!("{status}\n{}\n", lines.join("\n"))),
            Self::Page => (PAGE, page(status, &lines)),
        }
    }
}

fn page(status: StatusCode, lines: &[String]) -> String {
    let paragraphs: String = lines.iter().map(|line| format!("<p>{}</p>\n", escaped(line))).collect();
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<meta http-equiv=\"refresh\" content=\"2\">\n<title>{status}</title>\n\
         <style>:root {{ color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif }} body {{ max-width: 60rem; margin: 2rem auto; padding: 0 1rem }} \
         p {{ white-space: pre-wrap; overflow-wrap: anywhere; font-family: ui-monospace, monospace }}</style>\n\
         <h1>{status}</h1>\n{paragraphs}<p>This page looks again every two seconds (amphora serve --dev).</p>\n</html>\n"
    )
}

/// As text in HTML: it is a stranger's.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_browser_gets_a_page_and_others_text() {
        let headers = |value: &'static str| HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static(value))]);
        let browser = headers("text/html,application/xhtml+xml;q=0.9");
        assert_eq!(Detail::of(true, &browser), Detail::Page);
        assert_eq!(Detail::of(true, &headers("*/*")), Detail::Text);
        assert_eq!(Detail::of(false, &browser), Detail::Status);
    }

    #[test]
    fn what_a_page_quotes_is_no_part_of_it() {
        let page = page(StatusCode::BAD_GATEWAY, &["<script>\"a\" & b</script>".to_owned()]);
        assert!(page.contains("<p>&lt;script&gt;&quot;a&quot; &amp; b&lt;/script&gt;</p>"), "{page}");
    }
}
