//! Cases of Go's language, each checked against a Go program when it was written.

use serde_json::{Value, json};

use super::{Row, Template};

fn sample() -> Value {
    json!({
        "ID": "abc", "Size": 12, "Empty": "", "Running": true, "Nothing": null, "Ratio": 1.5,
        "State": {"ExitCode": 3, "Status": "exited"},
        "Names": ["web", "db"],
        "Labels": {"a.b/c": "x", "tier": "front"},
        "Mounts": [{"Source": "/a", "RW": true}, {"Source": "/b", "RW": false}],
        "Ports": {"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}], "443/tcp": null},
        "None": [], "Numbers": [3, 4, 5],
    })
}

fn render(template: &str) -> Result<String, String> {
    let row = Row::from(sample());
    Template::parse(template).and_then(|template| template.render(&row)).map_err(|error| error.to_string())
}

/// Template and text. Spaces in the raw strings matter.
const APPLIED: &[(&str, &str)] = &[
    ("", ""),
    ("plain", "plain"),
    ("{{.ID}}{{.ID | }}", "abcabc"),
    ("{{ .ID }}-{{.State.ExitCode}}", "abc-3"),
    ("{{.Names}} {{.Labels}}", "[web db] map[a.b/c:x tier:front]"),
    ("{{.Nothing}}", "<no value>"),
    ("{{.Labels.none}}", "<no value>"),
    ("{{.Ratio}} {{.Size}} {{.Running}}", "1.5 12 true"),
    // Docker's functions.
    ("{{json .State}}", r#"{"ExitCode":3,"Status":"exited"}"#),
    ("{{json .ID}}", r#""abc""#),
    ("{{.Names | json}}", r#"["web","db"]"#),
    (r#"{{join .Names ", "}}"#, "web, db"),
    (r#"{{join .Names "\n"}}"#, "web\ndb"),
    ("{{join .Names `|`}}", "web|db"),
    ("{{upper .ID}}{{.ID | upper | lower}}", "ABCabc"),
    (r#"{{title "ab cd-ef"}}"#, "Ab Cd-Ef"),
    (r#"{{truncate .ID 2}}|{{truncate .ID 9}}|{{pad .ID 1 2}}|{{pad "" 1 2}}"#, "ab|abc| abc  |"),
    (r#"{{split "a,b,c" ","}} {{index (split .State.Status "i") 1}}"#, "[a b c] ted"),
    (r#"{{range split "a.b" "."}}<{{.}}>{{end}}"#, "<a><b>"),
    // Control.
    ("{{range .Names}}<{{.}}>{{end}}", "<web><db>"),
    ("{{range .Mounts}}{{.Source}}{{if .RW}} rw{{else}} ro{{end}};{{end}}", "/a rw;/b ro;"),
    ("{{range .Labels}}{{.}},{{end}}", "x,front,"),
    ("{{range .Nothing}}x{{else}}none{{end}}{{range .None}}x{{else}}none{{end}}", "nonenone"),
    ("{{range 3}}{{.}}{{end}}{{range -1}}x{{else}}y{{end}}", "012y"),
    ("{{if .Empty}}a{{else if .Running}}b{{else}}c{{end}}", "b"),
    ("{{if .Empty}}a{{else if .Nothing}}b{{else}}c{{end}}", "c"),
    ("{{with .State}}{{.ExitCode}}{{end}}{{with .Empty}}x{{else}}{{.ID}}{{end}}", "3abc"),
    ("{{with .Empty}}x{{else with .ID}}{{.}}{{else}}z{{end}}", "abc"),
    ("{{range .Numbers}}{{if eq . 4}}{{continue}}{{end}}{{.}}{{end}}", "35"),
    ("{{range .Numbers}}{{if eq . 4}}{{break}}{{end}}{{.}}{{end}}.", "3."),
    ("{{range .Numbers}}{{with .}}{{if gt . 3}}{{break}}{{end}}{{.}}{{end}}{{end}}.", "3."),
    // Variables.
    ("{{$x := .ID}}{{$x}}{{$x}}", "abcabc"),
    ("{{$x := .State}}{{$x.ExitCode}}", "3"),
    ("{{$x := 1}}{{$x = 2}}{{$x}}", "2"),
    ("{{$x := 1}}{{if true}}{{$x = 2}}{{end}}{{$x}}", "2"),
    ("{{$x := 1}}{{if true}}{{$x := 2}}{{$x}}{{end}}{{$x}}", "21"),
    ("{{range $i, $n := .Names}}{{$i}}={{$n}};{{end}}", "0=web;1=db;"),
    ("{{range $k, $v := .Labels}}{{$k}}={{$v}};{{end}}", "a.b/c=x;tier=front;"),
    ("{{range $v := .Names}}{{$v}}{{$.ID}}{{end}}", "webabcdbabc"),
    ("{{range $i := 2}}{{$i}}{{end}}", "01"),
    ("{{with $x := .State}}{{$x.Status}}{{end}}", "exited"),
    ("{{if $x := .Empty}}a{{else}}<{{$x}}>{{end}}", "<>"),
    ("{{with .State}}{{$.ID}}{{end}}", "abc"),
    ("{{$s := \"\"}}{{range .Names}}{{$s = print $s . \",\"}}{{end}}{{$s}}", "web,db,"),
    (
        r#"{{range $p, $conf := .Ports}}{{$p}} -> {{if $conf}}{{(index $conf 0).HostPort}}{{else}}-{{end}} {{end}}"#,
        "443/tcp -> - 80/tcp -> 8080 ",
    ),
    // Comparisons and logic.
    (r#"{{if eq .State.Status "running" "exited"}}done{{end}}"#, "done"),
    ("{{if ne .Size 12}}x{{else}}y{{end}}", "y"),
    (
        "{{gt .Size 1}} {{ge 12 .Size}} {{lt .Size 1}} {{le 1 1}} {{lt \"a\" \"b\"}} {{gt 1.5 .Ratio}}",
        "true true false true true false",
    ),
    ("{{if not .Running}}x{{end}}{{not 0}}", "true"),
    (
        "{{and .ID .Size}} {{and .Empty .Boom}} {{or .Empty .ID}} {{or .ID .Boom}}|{{and 1 0 2}}|{{or 0 \"\"}}",
        "12  abc abc|0|",
    ),
    ("{{if and .Running (not .Empty)}}yes{{end}}", "yes"),
    ("{{eq .Nothing nil}} {{eq .ID nil}} {{ne .Names nil}}", "true false true"),
    ("{{eq 0x0c .Size}} {{eq 1_2 .Size}} {{eq 'a' 97}} {{eq 014 .Size}}", "true true true true"),
    // Indexes.
    (r#"{{index .Labels "a.b/c"}}|{{index .Labels "no"}}|{{index .Names 1}}"#, "x||db"),
    (r#"{{(index .Mounts 0).Source}} {{(index (index .Ports "80/tcp") 0).HostPort}}"#, "/a 8080"),
    (r#"{{index .Ports "80/tcp" 0 "HostPort"}} {{len .Labels}} {{len .ID}} {{len .None}}"#, "8080 2 3 0"),
    (r#"{{if eq (len .Names) 2}}two{{end}} {{slice .ID 1}} {{slice .ID 0 2}} {{slice .Numbers 1 2}}"#, "two bc ab [4]"),
    // Printing.
    ("{{println .ID .Size}}", "abc 12\n"),
    ("{{print .ID .Size}} {{print 1 2}} {{print \"a\" \"b\"}} {{print}}", "abc12 1 2 ab "),
    (r#"{{printf "%s is %d, %v%%" .ID .Size .Running}}"#, "abc is 12, true%"),
    (
        r#"{{printf "%-6s|%6s|%06d|%+d|%x|%X|%#x|%o|%b" .ID .ID .Size .Size 255 255 255 8 5}}"#,
        "abc   |   abc|000012|+12|ff|FF|0xff|10|101",
    ),
    (r#"{{printf "%q %q %v %t" .ID .Names .Names true}}"#, r#""abc" ["web" "db"] [web db] true"#),
    (r#"{{printf "%.2f %e %g %6.2f|%.3g" 3.14159 1500.5 .Ratio 2.5 1234.5}}"#, "3.14 1.500500e+03 1.5   2.50|1.23e+03"),
    (
        r#"{{printf "%d" "x"}} {{printf "%s" 3}} {{printf "%d"}} {{printf "a" 1}} {{printf "%z" 1}}"#,
        "%!d(string=x) %!s(int=3) %!d(MISSING) a%!(EXTRA int=1) %!z(int=1)",
    ),
    (r#"{{printf "%.1s|%5.1s|%c|%U|%T %T" .ID .ID 65 65 .ID .Size}}"#, "a|    a|A|U+0041|string int"),
    (r#"{{printf "%v %s" .Nothing .Nothing}} {{printf "%s" .Labels}}"#, "<nil> %!s(<nil>) map[a.b/c:x tier:front]"),
    (r#"{{printf "%*d" 5 .Size}} {{.ID | printf "%s-%s" "x"}}"#, "   12 x-abc"),
    (
        r#"{{html "<a href=\"x\">&'"}} {{js "it's <b>"}} {{urlquery "a b&c/é"}}"#,
        r"&lt;a href=&#34;x&#34;&gt;&amp;&#39; it\'s \u003Cb\u003E a+b%26c%2F%C3%A9",
    ),
    (
        r#"{{"}}"}}{{true}}{{7}} {{1e3}} {{1.5e300}} {{"\x41\u00e9\t"}}{{`\n`}} {{'x'}}"#,
        "}}true7 1000 1.5e+300 Aé\t\\n 120",
    ),
    // White space and comments.
    ("a {{- .ID -}} b", "aabcb"),
    ("a {{- /* nothing */ -}} x", "ax"),
    ("{{/* nothing }} */}}x", "x"),
    ("a\n\t{{- 3 -}}\n b {{-3}}", "a3b -3"),
    ("{{.ID\n}}{{ if\n.ID }}x{{ end }}", "abcx"),
    // Templates.
    (r#"{{define "t"}}<{{.}}>{{end}}{{template "t" .ID}}{{template "t"}}"#, "<abc><<no value>>"),
    (r#"{{block "b" .State}}{{.ExitCode}}{{end}}"#, "3"),
    (r#"{{range .Names}}{{template "x" .}}{{end}}{{define "x"}}{{.}};{{end}}"#, "web;db;"),
    (r#"{{(.ID)}} {{((.State)).ExitCode}} {{(.State).Status | upper}}"#, "abc 3 EXITED"),
];

#[test]
fn templates_are_applied() {
    for (template, expected) in APPLIED {
        assert_eq!(render(template).as_deref(), Ok(*expected), "{template}");
    }
}

/// Template, and what the error says after `template parsing error: template: `. Without the names that there are.
const REFUSED: &[(&str, &str)] = &[
    ("{{.ID", ":1: unclosed action"),
    ("{{if .ID}}x", ":1: unexpected EOF"),
    ("{{range .ID}}{{else}}x", ":1: unexpected EOF"),
    ("{{end}}", ":1: unexpected {{end}}"),
    ("{{else}}", ":1: unexpected {{else}}"),
    ("{{}}", ":1: missing value for command"),
    ("{{if}}x{{end}}", ":1: missing value for if"),
    ("{{nonsense .ID 3}}", ":1: function \"nonsense\" not defined"),
    ("{{.ID}}\n{{$x}}", ":2: undefined variable \"$x\""),
    ("{{if $x := .ID}}{{end}}{{$x}}", ":1: undefined variable \"$x\""),
    ("{{.ID | \"x\"}}", ":1: non executable command in pipeline stage 2"),
    ("{{\"abc}}", ":1: unterminated quoted string"),
    ("{{(.ID}}", ":1: unclosed left paren"),
    ("{{.ID)}}", ":1: unexpected right paren"),
    ("{{/* nothing", ":1: unclosed comment"),
    ("{{/* nothing */ .ID}}", ":1: comment ends before closing delimiter"),
    ("{{if .ID}}{{else}}{{else}}{{end}}", ":1: expected end; found {{else}}"),
    ("{{.ID ~}}", ":1: unexpected \"~\" in operand"),
    ("{{.ID~}}", ":1: bad character U+007E '~'"),
    ("{{1x}}", ":1: bad number syntax: \"1x\""),
    ("{{break}}", ":1: {{break}} outside {{range}}"),
    ("{{range $a, $b, $c := .Names}}{{end}}", ":1: too many declarations in range"),
    ("{{.Id}}", ":1:2: executing \"\" at <.Id>: map has no entry for key \"Id\""),
    ("{{.State.Foo}}", ":1:8: executing \"\" at <.State.Foo>: map has no entry for key \"Foo\""),
    ("x\n {{.Nothing.More}}", ":2:11: executing \"\" at <.Nothing.More>: nil pointer evaluating interface {}.More"),
    ("{{.ID.More}}", ":1:5: executing \"\" at <.ID.More>: can't evaluate field More in type interface {}"),
    ("{{range .ID}}{{end}}", ":1:8: executing \"\" at <.ID>: range can't iterate over abc"),
    ("{{join .ID}}", ":1:2: executing \"\" at <join>: wrong number of args for join: want 2 got 1"),
    ("{{upper .Size}}", ":1:8: executing \"\" at <.Size>: wrong type for value; expected string; got int"),
    ("{{len .Size}}", ":1:2: executing \"\" at <len .Size>: error calling len: len of type int"),
    ("{{index .Names 7}}", ":1:2: executing \"\" at <index .Names 7>: error calling index: index out of range: 7"),
    ("{{index .Nothing 0}}", ":1:2: executing \"\" at <index .Nothing 0>: error calling index: index of untyped nil"),
    (
        "{{eq .ID 3}}",
        ":1:2: executing \"\" at <eq .ID 3>: error calling eq: incompatible types for comparison: string and int",
    ),
    (
        "{{lt .Running true}}",
        ":1:2: executing \"\" at <lt .Running true>: error calling lt: invalid type for comparison",
    ),
    ("{{.ID .Size}}", ":1:2: executing \"\" at <.ID>: ID is not a method but has arguments"),
    ("{{3 .Size}}", ":1:2: executing \"\" at <3>: can't give argument to non-function 3"),
    (r#"{{template "t"}}"#, ":1:11: executing \"\" at <{{template \"t\"}}>: template \"t\" not defined"),
];

#[test]
fn what_cannot_be_applied_is_said_in_gos_words() {
    for (template, expected) in REFUSED {
        let message = render(template).unwrap_err();
        let problem = message.strip_prefix("template parsing error: template: ").unwrap_or(&message);
        let problem = problem.split("; there are: ").next().unwrap_or(problem);
        assert_eq!(problem.split(" in ").next(), expected.split(" in ").next(), "{template}: {message}");
    }
    let message = render("{{.Id}}").unwrap_err();
    assert!(message.contains("; there are: .ID, .Empty, .Labels"), "{message}");
}

#[test]
fn what_a_template_takes_is_bounded() {
    let nested = format!("{{{{{}", "(".repeat(100_000));
    let loops = "{{range 9999}}{{range 9999}}{{end}}{{end}}";
    let doubled = r#"{{$s := "0123456789"}}{{range 60}}{{$s = print $s $s}}{{end}}"#;
    let called = r#"{{define "r"}}{{template "r" .}}{{end}}{{template "r" .}}"#;
    for template in [
        &"{{if .ID}}".repeat(10_000),
        &"{{if .ID}}x{{else}}{{with .ID}}".repeat(10_000),
        &nested,
        loops,
        doubled,
        called,
        r#"{{range 9999}}{{printf "%1000000d" 1}}{{end}}"#,
        "{{range 9999999}}{{end}}",
    ] {
        let message = render(template).unwrap_err();
        let bounds = ["deeper than 64", "it takes more than", "maximum template depth", "can't iterate over 9999999"];
        assert!(bounds.iter().any(|bound| message.contains(bound)), "{message}");
    }
}

#[test]
fn a_label_forges_no_row_and_commands_no_terminal() {
    let hostile = Row::from(json!({
        "Labels": "a=b\nforged row\u{1b}[2J", "List": ["x\ny", "\u{9b}z"], "L": {"k\n": "v\r"}
    }));
    for (template, expected) in [
        ("{{.Labels}}", "a=b\\nforged row\\u{1b}[2J"),
        ("{{(.Labels)}}", "a=b\\nforged row\\u{1b}[2J"),
        ("{{$x := .Labels}}{{$x}}", "a=b\\nforged row\\u{1b}[2J"),
        ("{{.Labels | printf \"%s\"}}", "a=b\\nforged row\\u{1b}[2J"),
        ("{{.Labels | printf \"%q\"}}", "\"a=b\\nforged row\\x1b[2J\""),
        ("{{or .Labels 1}}", "a=b\\nforged row\\u{1b}[2J"),
        (r#"{{index (split .Labels "=") 1}}"#, "b\\nforged row\\u{1b}[2J"),
        ("{{slice .Labels 0 5}}", "a=b\\nf"),
        ("{{.List}}", "[x\\ny \\u{9b}z]"),
        ("{{.L}}", "map[k\\n:v\\r]"),
        ("{{range $k, $v := .L}}{{$k}}{{$v}}{{end}}", "k\\nv\\r"),
        (r#"{{index .L "k\n"}}"#, "v\\r"),
        (r#"{{join .List "\n"}}"#, "x\\ny\n\\u{9b}z"),
        ("{{range .List}}{{.}};{{end}}", "x\\ny;\\u{9b}z;"),
        ("{{println .Labels}}", "a=b\\nforged row\\u{1b}[2J\n"),
        ("{{html .Labels}}", "a=b\\nforged row\\u{1b}[2J"),
        ("{{json .List}}", r#"["x\ny","\u009bz"]"#),
    ] {
        assert_eq!(Template::parse(template).unwrap().render(&hostile).as_deref(), Ok(expected), "{template}");
    }
}

#[test]
fn headers_stand_for_their_fields() {
    let headers = Row::from(json!({"ID": "CONTAINER ID", "Names": "NAMES"}));
    for (template, expected) in [
        (r"{{.ID}}\t{{.Other}}", "CONTAINER ID\t<no value>"),
        ("{{json .ID}}", "CONTAINER ID"),
        (r#"{{join .Names ","}}"#, "NAMES"),
        (r#"{{.Names | upper}} {{printf "%.3s" .ID}}"#, "NAMES CON"),
        (r#"{{.Label "tier"}}"#, "tier"),
    ] {
        let template = Template::parse_line(template).unwrap();
        assert_eq!(template.render_header(&headers).as_deref(), Ok(expected), "{template:?}");
    }
}

#[test]
fn a_row_has_its_labels() {
    let labels = [("tier".to_owned(), "fr,ont\n".to_owned())].into_iter().collect();
    let row = Row { fields: sample(), labels };
    let render = |template: &str| Template::parse(template).unwrap().render(&row).map_err(|error| error.to_string());
    assert_eq!(render(r#"{{.Label "tier"}}|{{.Label "no"}}"#).as_deref(), Ok("fr,ont\\n|"));
    assert_eq!(render(r#"{{if eq (.Label "no") ""}}none{{end}}"#).as_deref(), Ok("none"));
    assert!(render("{{.Label}}").unwrap_err().contains("wrong number of args for Label: want 1 got 0"));
}

#[test]
fn tabs_and_new_lines_stand_for_themselves_in_lines() {
    let render = |template: &str| Template::parse_line(template).unwrap().render(&sample().into()).unwrap();
    assert_eq!(render(r#"a\tb\nc\d{{join .Names "\n"}}\t"#), "a\tb\nc\\dweb\ndb\t");
    assert_eq!(Template::parse(r"a\tb").unwrap().render(&sample().into()).as_deref(), Ok(r"a\tb"));
}
