//! The head of a command's answer (RFC 3875, 6): lines of `Name: value`, an empty one, then the body.

use hyper::{
    Response, StatusCode,
    header::{CONTENT_TYPE, HeaderName, HeaderValue, LOCATION},
};

/// Where the head ends, and the body begins. `looked_at`: so many bytes of it have no end.
pub(super) fn end_of_head(read: &[u8], looked_at: usize) -> Option<usize> {
    let is_end =
        |at: &usize| read[*at] == b'\n' && matches!(&read[..*at], [] | [b'\r'] | [.., b'\n'] | [.., b'\n', b'\r']);
    (looked_at..read.len()).find(is_end).map(|at| at + 1)
}

/// What a head says, or a sentence for what it does not.
pub(super) fn parse(head: &[u8]) -> Result<Response<()>, String> {
    let mut response = Response::new(());
    let (mut status, mut is_empty) = (None, true);
    for line in head.split(|byte| *byte == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            break;
        }
        is_empty = false;
        let shown = || String::from_utf8_lossy(line).chars().take(100).collect::<String>();
        let wrong = || format!("the command's answer has the line `{}`; expected `Name: value`", shown());
        let colon = line.iter().position(|byte| *byte == b':').ok_or_else(wrong)?;
        let name = HeaderName::from_bytes(&line[..colon]).map_err(|_| wrong())?;
        let value = line[colon + 1..].trim_ascii();
        if name.as_str() == "status" {
            let number = value.split(|byte| *byte == b' ').next().unwrap_or_default();
            let number = StatusCode::from_bytes(number).ok().filter(|number| !number.is_informational());
            status = Some(
                number.ok_or_else(|| format!("the command's answer has `{}`; expected Status: 200 to 999", shown()))?,
            );
            continue;
        }
        response.headers_mut().append(name, HeaderValue::from_bytes(value).map_err(|_| wrong())?);
    }
    let headers = response.headers();
    if is_empty || (status.is_none() && !headers.contains_key(CONTENT_TYPE) && !headers.contains_key(LOCATION)) {
        return Err("the command's answer has neither Content-Type nor Location nor Status".to_owned());
    }
    let usual = if headers.contains_key(LOCATION) { StatusCode::FOUND } else { StatusCode::OK };
    *response.status_mut() = status.unwrap_or(usual);
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_ends_at_an_empty_line() {
        for (text, expected) in [
            ("a: b\n\nbody", Some(6)),
            ("a: b\r\n\r\nbody", Some(8)),
            ("a: b\r\n\nbody", Some(7)),
            ("\nbody", Some(1)),
            ("a: b\n", None),
            ("", None),
        ] {
            let by_bytes = (0..text.len()).find_map(|length| end_of_head(&text.as_bytes()[..=length], length));
            assert_eq!((end_of_head(text.as_bytes(), 0), by_bytes), (expected, expected), "{text:?}");
        }
    }

    #[test]
    fn a_head_says_status_and_headers() {
        let parsed = |text: &str| parse(text.as_bytes()).map(|response| response.status().as_u16());
        assert_eq!(parsed("Content-Type: text/plain\n\n"), Ok(200));
        assert_eq!(parsed("Status: 404 Not Found\r\n\r\n"), Ok(404));
        assert_eq!(parsed("Location: /there\n\n"), Ok(302));
        assert_eq!(parsed("Status: 201\nLocation: /there\n\n"), Ok(201));
        let response = parse(b"Content-Type:a/b\nSet-Cookie: a\nset-cookie:  b \n\n").unwrap();
        let cookies: Vec<_> = response.headers().get_all("set-cookie").iter().collect();
        assert_eq!(cookies, ["a", "b"]);
        for (text, expected) in [
            ("\n", "neither Content-Type"),
            ("X: y\n\n", "neither Content-Type"),
            ("hello\n\n", "the line `hello`; expected `Name: value`"),
            ("a b: c\n\n", "the line `a b: c`"),
            ("Status: 100\n\n", "expected Status"),
            ("Status: x\n\n", "expected Status"),
            ("Content-Type: a\x01b\n\n", "expected `Name: value`"),
        ] {
            let error = parsed(text).unwrap_err();
            assert!(error.contains(expected), "{text:?}: {error}");
        }
    }
}
