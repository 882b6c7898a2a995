//! The page of `amphora serve`, in a browser: on a phone, a screen and a wide screen, light and dark, nothing is cut off, no drawing is empty,
//! what it needs comes from the gateway, and a keyboard is enough.

use std::fs;

use serde_json::{Value, json};

use crate::{
    browser::{Browser, View},
    serve::{Gateway, HELLO, WEB, is, sandbox},
    session::until,
};

const VIEWS: [View; 6] = [
    (360, 740, "screen", "light"),
    (360, 740, "screen", "dark"),
    (1024, 768, "screen", "light"),
    (1024, 768, "screen", "dark"),
    (1920, 1080, "screen", "light"),
    (1920, 1080, "screen", "dark"),
];

/// What is wrong with the page as it is shown now: a list of sentences.
const LOOK: &str = r#"(() => {
  const problems = [];
  const root = document.documentElement;
  if (root.scrollWidth > root.clientWidth) problems.push(`the page is ${root.scrollWidth} wide`);
  const cards = [...document.querySelectorAll('#functions > li')];
  if (cards.length !== 3) problems.push(`there are ${cards.length} functions`);
  for (const card of cards) {
    const frame = card.getBoundingClientRect();
    for (const part of card.querySelectorAll('*:not([hidden])')) {
      const box = part.getBoundingClientRect();
      if (box.left < frame.left - 1 || box.right > frame.right + 1) problems.push(`${part.tagName} outside of ${card.textContent.slice(0, 20)}`);
    }
    const plots = card.querySelectorAll('svg');
    if (plots.length !== 3) problems.push(`${plots.length} drawings`);
    // Of the first nothing starts, and of the second there is nothing to start.
    const title = card.querySelector('h2').textContent, starts = !title.startsWith('dead') && !title.includes('in process');
    plots.forEach((plot, at) => {
      const frame = plot.getBoundingClientRect(), bars = [...plot.querySelectorAll('rect')];
      if (frame.height < 40 || frame.width < 200) problems.push(`a drawing of ${frame.width} x ${frame.height}`);
      if (bars.length === 0 && (starts || at !== 1)) problems.push(`nothing is drawn in: ${plot.getAttribute('aria-label')}`);
      for (const bar of bars.map(bar => bar.getBoundingClientRect()))
        if (bar.top < frame.top - 1 || bar.bottom > frame.bottom + 1 || bar.height < 1) problems.push(`a bar of ${bar.height} in: ${plot.getAttribute('aria-label')}`);
    });
    for (const pair of card.querySelectorAll('dl > div')) if (pair.textContent.includes('NaN') || pair.textContent.includes('undefined')) problems.push(pair.textContent);
  }
  const light = color => color.match(/\d+/g).slice(0, 3).reduce((sum, part) => sum + Number(part), 0);
  const style = getComputedStyle(document.body), dark = matchMedia('(prefers-color-scheme: dark)').matches;
  const [ink, paper] = [light(style.color), light(style.backgroundColor)];
  if (Math.abs(ink - paper) < 500 || (paper < ink) !== dark) problems.push(`ink ${style.color} on ${style.backgroundColor}`);
  return problems;
})()"#;

fn key(browser: &mut Browser, key: &str) {
    let code = if key == "Tab" { 9 } else { 32 };
    let text = if key == "Tab" { "" } else { " " };
    for kind in ["keyDown", "keyUp"] {
        let event = json!({ "type": kind, "key": key, "windowsVirtualKeyCode": code, "text": text });
        browser.ask("Input.dispatchKeyEvent", &event);
    }
}

#[test]
fn the_page_of_a_gateway_is_whole_and_used_by_keys() {
    let Some((sandbox, images)) = sandbox() else { return };
    let folder = sandbox.work().join("browser");
    fs::create_dir(&folder).expect("a folder");
    let Some(mut browser) = Browser::start(&folder) else { return };
    let text = format!(
        "admin = \"127.0.0.1:0\"\n{WEB}{HELLO}[functions.dead]\nimage = \"BUSYBOX\"\ncommand = [\"sh\", \"-c\", \"echo '<b>no luck</b> and {}'; exit 3\"]\n\
         [[routes]]\nfunction = \"hello\"\n[[routes]]\npath = \"/legacy\"\nfunction = \"web\"\n[[routes]]\npath = \"/dead\"\nfunction = \"dead\"\n",
        "a-rather-long-word-without-a-space-".repeat(8),
    );
    let gateway = Gateway::start(&sandbox, &images, &text);
    let said = gateway.session.stderr();
    let page = said.split_once("operators: ").and_then(|(_, rest)| rest.lines().next()).expect("where the page is");
    browser.open(page);
    let first = "document.querySelectorAll('#functions > li').length";
    until("the functions", || (browser.evaluate(first) == 3).then_some(()));
    // Beginning now: what comes is drawn.
    for _ in 0..20 {
        is(&gateway.get("/"), 200);
        is(&gateway.get("/legacy/"), 200);
    }
    is(&gateway.get("/dead"), 502);
    let drawn = "[...document.querySelectorAll('#functions > li')].every(card => card.querySelectorAll('figure:first-of-type rect').length > 0)";
    until("the requests", || (browser.evaluate(drawn) == true).then_some(()));
    for view in VIEWS {
        browser.show(view);
        let (width, _, _, scheme) = view;
        // Each event may come in between.
        assert_eq!(browser.look(LOOK), Vec::<String>::new(), "{view:?}");
        browser.picture(&format!("serve-{width}-{scheme}.png"));
    }
    // What a function said is text there.
    assert_eq!(browser.evaluate("document.querySelectorAll('#functions b').length"), 0);
    let error = browser.evaluate("document.querySelector('#functions pre:not([hidden])').textContent");
    assert!(error.as_str().is_some_and(|error| error.contains("<b>no luck</b>")), "{error}");
    // By keys alone: the button, then the error that is scrolled.
    key(&mut browser, "Tab");
    assert_eq!(browser.evaluate("document.activeElement.id"), "pause");
    key(&mut browser, " ");
    assert_eq!(browser.evaluate("document.activeElement.textContent"), "Go on");
    key(&mut browser, "Tab");
    assert_eq!(browser.evaluate("document.activeElement.tagName"), "PRE");
    let (root, _) = page.split_once('?').expect("a token");
    assert_eq!(browser.complaints(&[page, root, &format!("{root}events")]), Vec::<&Value>::new());
    drop(browser);
    gateway.stop();
    sandbox.check_clean();
}
