//! The page that `amphora bench --report` writes, in a browser: on a phone, a screen, a wide screen and on paper, light and dark,
//! nothing is cut off, no drawing is empty, and the browser has nothing to complain of.

use std::fs;

use serde_json::{Value, json};

use crate::{
    browser::{Browser, View},
    sandbox::Sandbox,
};

const VIEWS: [View; 7] = [
    (360, 740, "screen", "light"),
    (360, 740, "screen", "dark"),
    (1024, 768, "screen", "light"),
    (1024, 768, "screen", "dark"),
    (1920, 1080, "screen", "light"),
    (1920, 1080, "screen", "dark"),
    // A4 between margins of a centimetre, at 96 dots an inch.
    (718, 1047, "print", "light"),
];

/// What is wrong with the page as it is shown now: a list of sentences.
const LOOK: &str = r#"(() => {
  const problems = [];
  const root = document.documentElement;
  if (root.scrollWidth > root.clientWidth) problems.push(`the page is ${root.scrollWidth} wide`);
  const plots = document.querySelectorAll('svg');
  if (plots.length < 4) problems.push(`there are only ${plots.length} drawings`);
  for (const plot of plots) {
    const name = plot.getAttribute('aria-label'), frame = plot.getBoundingClientRect();
    if (plot.querySelectorAll('circle').length === 0) problems.push(`nothing is drawn in: ${name}`);
    if (frame.height < 40) problems.push(`${frame.height} high: ${name}`);
    const inside = box => box.left >= frame.left - 1 && box.right <= frame.right + 1
      && box.top >= frame.top - 1 && box.bottom <= frame.bottom + 1;
    const labels = [...plot.querySelectorAll('text')];
    for (const part of [...labels, ...plot.querySelectorAll('circle')])
      if (!inside(part.getBoundingClientRect())) problems.push(`outside of ${name}: ${part.textContent || 'a point'}`);
    for (const [index, label] of labels.entries()) {
      const one = label.getBoundingClientRect();
      if (one.height < 7) problems.push(`too small to read, in ${name}: ${label.textContent}`);
      for (const other of labels.slice(index + 1)) {
        const two = other.getBoundingClientRect();
        if (one.left < two.right - 1 && two.left < one.right - 1 && one.top < two.bottom - 2 && two.top < one.bottom - 2)
          problems.push(`over each other, in ${name}: ${label.textContent} / ${other.textContent}`);
      }
    }
  }
  for (const bars of document.querySelectorAll('.bars'))
    if (![...bars.querySelectorAll('.bar')].some(bar => bar.getBoundingClientRect().width >= 2))
      problems.push(`no bar is seen of: ${bars.textContent}`);
  if (matchMedia('print').matches)
    for (const wide of document.querySelectorAll('.wide'))
      if (wide.scrollWidth > wide.clientWidth + 1) problems.push(`cut off on paper: ${wide.textContent.slice(0, 60)}`);
  const light = color => color.match(/\d+/g).slice(0, 3).reduce((sum, part) => sum + Number(part), 0);
  const style = getComputedStyle(document.body), dark = matchMedia('(prefers-color-scheme: dark)').matches;
  const [ink, paper] = [light(style.color), light(style.backgroundColor)];
  if (Math.abs(ink - paper) < 500 || (paper < ink) !== dark) problems.push(`ink ${style.color} on ${style.backgroundColor}`);
  return problems;
})()"#;

#[test]
fn the_page_is_whole_on_a_phone_a_screen_and_paper() {
    let Some(sandbox) = Sandbox::new() else { return };
    let browser_folder = sandbox.work().join("browser");
    fs::create_dir(&browser_folder).expect("a folder");
    let Some(mut browser) = Browser::start(&browser_folder) else { return };
    let report = sandbox.work().join("report");
    let words = ["bench", "--peers", "", "--runs", "8", "--at-once", "1,2"];
    let peer = sandbox.file("peer", "echo 'Hello from a vessel of Linux code.'");
    let peers = ["--peer", &format!("a-peer-with-a-rather-long-name=sh {peer}"), "--peer", "missing=/no/such"];
    let all = ["--only", "start,stages,size,memory,http,pull", "--report", report.to_str().expect("UTF-8")];
    sandbox.ok([&words[..], &peers, &all].concat());
    let page = format!("file://{}", report.join("report.html").display());
    browser.open(&page);
    for view in VIEWS {
        browser.show(view);
        assert_eq!(browser.look(LOOK), Vec::<String>::new(), "{view:?}");
    }
    let paper = browser.ask("Page.printToPDF", &json!({ "paperWidth": 8.27, "paperHeight": 11.69 }));
    assert!(paper["data"].as_str().is_some_and(|data| data.starts_with("JVBERi")), "no PDF");
    assert_eq!(browser.complaints(&[&page]), Vec::<&Value>::new());
}
