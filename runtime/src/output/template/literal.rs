//! Go's literals: numbers, characters and strings; and text as Go quotes it.

use serde_json::Value;

use super::lex::{Kind, Token};

/// What a token of a literal stands for.
pub(super) fn value(token: &Token) -> Result<Value, String> {
    match token.kind {
        Kind::Number => number(&token.text),
        Kind::Character => {
            let inner = &token.text[1..token.text.len() - 1];
            let text = unescaped(inner).filter(|text| text.chars().count() == 1);
            let character = text.and_then(|text| text.chars().next());
            character
                .map(|c| u32::from(c).into())
                .ok_or_else(|| format!("malformed character constant: {}", token.text))
        }
        _ => string(&token.text).map(Value::from),
    }
}

/// A string with its quotes.
pub(super) fn string(text: &str) -> Result<String, String> {
    let inner = &text[1..text.len() - 1];
    match text.starts_with('`') {
        true => Ok(inner.to_owned()),
        false => unescaped(inner).ok_or_else(|| "invalid syntax".to_owned()),
    }
}

fn number(text: &str) -> Result<Value, String> {
    let kind = if text.bytes().all(|b| b.is_ascii_digit() || b"+-._eE".contains(&b)) { "illegal" } else { "bad" };
    let problem = || format!("{kind} number syntax: {}", quoted(text));
    let (negative, digits) = match text.strip_prefix(['+', '-']) {
        Some(digits) => (text.starts_with('-'), digits),
        None => (false, text),
    };
    let clean = digits.replace('_', "");
    let lower = clean.to_ascii_lowercase();
    let (radix, body) = match lower.get(..2) {
        Some("0x") => (16, &lower[2..]),
        Some("0b") => (2, &lower[2..]),
        Some("0o") => (8, &lower[2..]),
        _ if lower.len() > 1 && lower.starts_with('0') && lower.bytes().all(|b| b.is_ascii_digit()) => (8, &lower[1..]),
        _ => (10, lower.as_str()),
    };
    if body.is_empty() || body.starts_with(['+', '-']) {
        return Err(problem());
    }
    if let Ok(whole) = i128::from_str_radix(body, radix) {
        let whole = if negative { -whole } else { whole };
        return i64::try_from(whole).map(Value::from).map_err(|_| format!("integer overflow: {}", quoted(text)));
    }
    let is_decimal = radix == 10 && body.bytes().all(|b| b.is_ascii_digit() || b".e+-".contains(&b));
    let float = body.parse::<f64>().ok().filter(|float| is_decimal && float.is_finite()).ok_or_else(problem)?;
    let float = if negative { -float } else { float };
    Ok(Value::from(float))
}

fn unescaped(inner: &str) -> Option<String> {
    let mut text = String::with_capacity(inner.len());
    let mut rest = inner.chars();
    while let Some(character) = rest.next() {
        if character != '\\' {
            text.push(character);
            continue;
        }
        text.push(match rest.next()? {
            'a' => '\u{7}',
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'v' => '\u{b}',
            c @ ('\\' | '"' | '\'') => c,
            'x' => coded(&mut rest, 2, 16)?,
            'u' => coded(&mut rest, 4, 16)?,
            'U' => coded(&mut rest, 8, 16)?,
            first @ '0'..='7' => {
                let digits: String = std::iter::once(first).chain(rest.by_ref().take(2)).collect();
                char::from(u8::from_str_radix(&digits, 8).ok()?)
            }
            _ => return None,
        });
    }
    Some(text)
}

fn coded(rest: &mut std::str::Chars, digits: usize, radix: u32) -> Option<char> {
    let digits: String = rest.by_ref().take(digits).collect();
    char::from_u32(u32::from_str_radix(&digits, radix).ok()?)
}

/// Text as `%q` shows it.
pub(super) fn quoted(text: &str) -> String {
    let mut shown = String::from("\"");
    for character in text.chars() {
        match character {
            '"' => shown.push_str("\\\""),
            '\\' => shown.push_str("\\\\"),
            '\u{7}' => shown.push_str("\\a"),
            '\u{8}' => shown.push_str("\\b"),
            '\u{c}' => shown.push_str("\\f"),
            '\n' => shown.push_str("\\n"),
            '\r' => shown.push_str("\\r"),
            '\t' => shown.push_str("\\t"),
            '\u{b}' => shown.push_str("\\v"),
            c if c < '\u{80}' && c.is_control() => shown.push_str(&format!("\\x{:02x}", u32::from(c))),
            // What changes the direction of text does not print in Go's eyes either.
            c if crate::output::harmless(c.encode_utf8(&mut [0; 4])).starts_with('\\') => {
                shown.push_str(&format!("\\u{:04x}", u32::from(c)));
            }
            c => shown.push(c),
        }
    }
    shown.push('"');
    shown
}
