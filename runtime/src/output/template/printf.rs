//! `print`, `println` and `printf`, as Go's fmt package has them.

use std::iter::Peekable;

use serde_json::Value;

use super::{
    functions::WIDEST,
    literal::quoted,
    value::{Val, go_exponent, text, type_of},
};

/// A space between two of which neither is a string.
pub(super) fn sprint(given: &[Val]) -> String {
    let mut printed = String::new();
    for (index, argument) in given.iter().enumerate() {
        let is_string = |one: Option<&Val>| one.is_some_and(|one| one.value.is_string());
        if index > 0 && !is_string(given.get(index - 1)) && !is_string(Some(argument)) {
            printed.push(' ');
        }
        printed.push_str(&argument.shown(&text(&argument.value)));
    }
    printed
}

/// A space between any two, and a new line.
pub(super) fn sprintln(given: &[Val]) -> String {
    let texts: Vec<String> = given.iter().map(|argument| argument.shown(&text(&argument.value))).collect();
    format!("{}\n", texts.join(" "))
}

/// What stands between `%` and its verb.
#[derive(Default)]
struct Flags {
    plus: bool,
    minus: bool,
    sharp: bool,
    space: bool,
    zero: bool,
    width: Option<usize>,
    precision: Option<usize>,
}

/// `printf`.
pub(super) fn sprintf(format: &str, given: &[Val]) -> String {
    let mut printed = String::new();
    let mut given = given.iter();
    let mut rest = format.chars().peekable();
    while let Some(character) = rest.next() {
        if character != '%' {
            printed.push(character);
            continue;
        }
        let flags = flags(&mut rest, &mut given);
        match rest.next() {
            None => printed.push_str("%!(NOVERB)"),
            Some('%') => printed.push('%'),
            Some(verb) => match given.next() {
                None => printed.push_str(&format!("%!{verb}(MISSING)")),
                Some(argument) => printed.push_str(&one(verb, argument, &flags)),
            },
        }
    }
    let extra: Vec<String> =
        given.map(|one| format!("{}={}", type_of(&one.value), one.shown(&text(&one.value)))).collect();
    if !extra.is_empty() {
        printed.push_str(&format!("%!(EXTRA {})", extra.join(", ")));
    }
    printed
}

fn flags<'a, 'd: 'a>(rest: &mut Peekable<std::str::Chars>, given: &mut impl Iterator<Item = &'a Val<'d>>) -> Flags {
    let mut flags = Flags::default();
    while let Some(flag) = rest.next_if(|c| "+-# 0".contains(*c)) {
        match flag {
            '+' => flags.plus = true,
            '-' => flags.minus = true,
            '#' => flags.sharp = true,
            ' ' => flags.space = true,
            _ => flags.zero = true,
        }
    }
    flags.width = number(rest, given);
    if rest.next_if_eq(&'.').is_some() {
        flags.precision = Some(number(rest, given).unwrap_or(0));
    }
    flags
}

fn number<'a, 'd: 'a>(
    rest: &mut Peekable<std::str::Chars>,
    given: &mut impl Iterator<Item = &'a Val<'d>>,
) -> Option<usize> {
    let widest = usize::try_from(WIDEST).unwrap_or(usize::MAX);
    if rest.next_if_eq(&'*').is_some() {
        return given.next().and_then(|one| usize::try_from(one.value.as_i64()?).ok()).map(|width| width.min(widest));
    }
    let mut digits = None;
    while let Some(digit) = rest.next_if(char::is_ascii_digit).and_then(|digit| digit.to_digit(10)) {
        digits = Some((digits.unwrap_or(0) * 10 + digit as usize).min(widest));
    }
    digits
}

/// One argument; of a list or a map each of its parts, as Go does.
fn one(verb: char, argument: &Val, flags: &Flags) -> String {
    let value = argument.value.as_ref();
    if verb == 'T' {
        return padded(type_of(value), flags);
    }
    match value {
        Value::Array(items) if verb != 'p' => {
            let parts: Vec<String> = items.iter().map(|item| part(verb, argument, item, flags)).collect();
            format!("[{}]", parts.join(" "))
        }
        Value::Object(fields) if verb != 'p' => {
            let pair = |(name, item): (&String, &Value)| {
                let key = part(verb, argument, &name.as_str().into(), flags);
                format!("{key}:{}", part(verb, argument, item, flags))
            };
            format!("map[{}]", fields.iter().map(pair).collect::<Vec<_>>().join(" "))
        }
        _ => scalar(verb, argument, flags),
    }
}

fn part(verb: char, whole: &Val, part: &Value, flags: &Flags) -> String {
    one(verb, &Val { made: whole.made, ..Val::made(part.clone()) }, flags)
}

fn scalar(verb: char, argument: &Val, flags: &Flags) -> String {
    let value = argument.value.as_ref();
    match (verb, value) {
        ('v', Value::Number(number)) if number.is_f64() && flags.precision.is_some() => {
            float('g', number.as_f64(), flags)
        }
        ('v', Value::Number(number)) if !number.is_f64() => whole('d', number.as_i64(), flags),
        ('v', _) => padded(&argument.shown(&text(value)), flags),
        ('t', Value::Bool(value)) => padded(&value.to_string(), flags),
        ('s', Value::String(text)) => padded(&argument.shown(&cut(text, flags)), flags),
        ('q', Value::String(text)) => padded(&quoted(&cut(text, flags)), flags),
        ('x' | 'X', Value::String(text)) => {
            let hex: String = text.bytes().map(|byte| format!("{byte:02x}")).collect();
            padded(&if verb == 'X' { hex.to_uppercase() } else { hex }, flags)
        }
        ('e' | 'E' | 'f' | 'F' | 'g' | 'G', Value::Number(number)) if number.is_f64() => {
            float(verb, number.as_f64(), flags)
        }
        ('d' | 'b' | 'o' | 'O' | 'x' | 'X' | 'c' | 'q' | 'U', Value::Number(number)) if !number.is_f64() => {
            whole(verb, number.as_i64(), flags)
        }
        (verb, Value::Null) => format!("%!{verb}(<nil>)"),
        (verb, value) => format!("%!{verb}({}={})", type_of(value), argument.shown(&text(value))),
    }
}

fn cut(text: &str, flags: &Flags) -> String {
    text.chars().take(flags.precision.unwrap_or(usize::MAX)).collect()
}

fn whole(verb: char, number: Option<i64>, flags: &Flags) -> String {
    let number = number.unwrap_or(i64::MAX);
    let character = || u32::try_from(number).ok().and_then(char::from_u32).unwrap_or('\u{fffd}');
    let size = number.unsigned_abs();
    let digits = match verb {
        'b' => format!("{size:b}"),
        'o' => format!("{size:o}"),
        'O' => format!("0o{size:o}"),
        'x' if flags.sharp => format!("{size:#x}"),
        'x' => format!("{size:x}"),
        'X' if flags.sharp => format!("0X{size:X}"),
        'X' => format!("{size:X}"),
        'c' => return padded(&crate::output::harmless(&character().to_string()), flags),
        'q' => return padded(&quoted(&character().to_string()).replace('"', "'"), flags),
        'U' => return padded(&format!("U+{size:04X}"), flags),
        _ => size.to_string(),
    };
    let digits = match flags.precision {
        Some(least) => format!("{}{digits}", "0".repeat(least.saturating_sub(digits.len()))),
        None => digits,
    };
    signed(number < 0, &digits, flags)
}

fn float(verb: char, number: Option<f64>, flags: &Flags) -> String {
    let number = number.unwrap_or(f64::NAN);
    let (size, precision) = (number.abs(), flags.precision.unwrap_or(6).min(1000));
    let digits = match verb {
        'f' | 'F' => format!("{size:.precision$}"),
        'e' | 'E' => go_exponent(&format!("{size:.precision$e}")),
        _ if flags.precision.is_some() => significant(size, precision.max(1)),
        _ => text(&Value::from(size)),
    };
    let digits = if verb.is_ascii_uppercase() { digits.to_uppercase() } else { digits };
    signed(number.is_sign_negative(), &digits, flags)
}

/// `%.3g`
fn significant(size: f64, digits: usize) -> String {
    let exponent = format!("{size:.*e}", digits - 1);
    let power: i64 = exponent.split_once('e').and_then(|(_, power)| power.parse().ok()).unwrap_or(0);
    let places = i64::try_from(digits).unwrap_or(i64::MAX);
    let trimmed = |text: String| match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    };
    match (-4..places).contains(&power) {
        true => trimmed(format!("{size:.*}", usize::try_from(places - 1 - power).unwrap_or(0))),
        false => {
            let (mantissa, power) = exponent.split_once('e').unwrap_or((&exponent, "0"));
            go_exponent(&format!("{}e{power}", trimmed(mantissa.to_owned())))
        }
    }
}

fn signed(negative: bool, digits: &str, flags: &Flags) -> String {
    let sign = match (negative, flags.plus, flags.space) {
        (true, ..) => "-",
        (_, true, _) => "+",
        (_, _, true) => " ",
        _ => "",
    };
    let width = flags.width.unwrap_or(0);
    match flags.zero && !flags.minus && flags.precision.is_none() {
        true => format!("{sign}{}{digits}", "0".repeat(width.saturating_sub(sign.len() + digits.len()))),
        false => padded(&format!("{sign}{digits}"), flags),
    }
}

fn padded(text: &str, flags: &Flags) -> String {
    let missing = flags.width.unwrap_or(0).saturating_sub(text.chars().count());
    match (flags.minus, flags.zero) {
        (true, _) => format!("{text}{}", " ".repeat(missing)),
        (_, true) => format!("{}{text}", "0".repeat(missing)),
        _ => format!("{}{text}", " ".repeat(missing)),
    }
}
