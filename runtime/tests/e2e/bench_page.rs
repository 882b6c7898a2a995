//! The page that `amphora bench --report` writes, in a browser: on a phone, a screen, a wide screen and on paper, light and dark,
//! nothing is cut off, no drawing is empty, and the browser has nothing to complain of.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use serde_json::{Value, json};

use crate::sandbox::Sandbox;

/// Width and height, and what the page is looked at as.
const VIEWS: [(u32, u32, &str, &str); 7] = [
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

/// A browser that is told what to do by a pipe (Chrome DevTools protocol).
struct Browser {
    process: Child,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
    count: u64,
    session: Option<String>,
    /// What it told without being asked.
    events: Vec<Value>,
}

impl Browser {
    /// None, and said so, where there is none.
    fn start(folder: &Path) -> Option<Self> {
        let script = "exec chromium --headless --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run \
                      --remote-debugging-pipe --user-data-dir=\"$1\" 3<&0 4>&1 </dev/null >/dev/null 2>&1";
        if !Path::new("/usr/bin/chromium").exists() {
            println!("skipped: chromium is not installed");
            return None;
        }
        let mut shell = Command::new("sh");
        // As an ordinary user it has no home of its own.
        shell.args(["-c", script, "sh"]).arg(folder).env("HOME", folder);
        let mut process = shell.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("a shell");
        let (requests, answers) = (process.stdin.take().expect("a pipe"), process.stdout.take().expect("a pipe"));
        let mut browser =
            Self { process, requests, answers: BufReader::new(answers), count: 0, session: None, events: Vec::new() };
        let target = browser.ask("Target.createTarget", &json!({ "url": "about:blank" }));
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        browser.session = browser.ask("Target.attachToTarget", &attach)["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page", "Runtime", "Log", "Network"] {
            browser.ask(&format!("{domain}.enable"), &json!({}));
        }
        Some(browser)
    }

    fn ask(&mut self, method: &str, parameters: &Value) -> Value {
        self.count += 1;
        let mut request = json!({ "id": self.count, "method": method, "params": parameters });
        if let Some(session) = &self.session {
            request["sessionId"] = session.as_str().into();
        }
        write!(self.requests, "{request}\0").expect("a browser that listens");
        loop {
            let message = self.message();
            if message["id"] == self.count {
                assert!(message["error"].is_null(), "{method}: {message}");
                return message["result"].clone();
            }
            self.events.push(message);
        }
    }

    fn message(&mut self) -> Value {
        let mut bytes = Vec::new();
        self.answers.read_until(0, &mut bytes).expect("a browser that answers");
        assert_eq!(bytes.pop(), Some(0), "the browser ended");
        serde_json::from_slice(&bytes).expect("JSON")
    }

    fn open(&mut self, page: &Path) {
        self.ask("Page.navigate", &json!({ "url": format!("file://{}", page.display()) }));
        while !self.events.iter().any(|event| event["method"] == "Page.loadEventFired") {
            let message = self.message();
            self.events.push(message);
        }
    }

    /// The page as it is shown in one view: what is wrong with it.
    fn look(&mut self, (width, height, media, scheme): (u32, u32, &str, &str)) -> Vec<String> {
        let metrics = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.ask("Emulation.setDeviceMetricsOverride", &metrics);
        let scheme = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.ask("Emulation.setEmulatedMedia", &json!({ "media": media, "features": scheme }));
        let found = self.ask("Runtime.evaluate", &json!({ "expression": LOOK, "returnByValue": true }));
        let problems = found["result"]["value"].as_array().unwrap_or_else(|| panic!("{found}")).iter();
        problems.filter_map(Value::as_str).map(str::to_owned).collect()
    }

    /// What it complained of, and what it wanted from elsewhere.
    fn complaints(&self, page: &Path) -> Vec<&Value> {
        let page = format!("file://{}", page.display());
        let is_complaint = |event: &&Value| match event["method"].as_str().unwrap_or_default() {
            "Runtime.consoleAPICalled" | "Runtime.exceptionThrown" | "Log.entryAdded" => true,
            "Network.requestWillBeSent" => event["params"]["request"]["url"] != page.as_str(),
            _ => false,
        };
        self.events.iter().filter(is_complaint).collect()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Its other processes end with it.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

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
    let page = report.join("report.html");
    browser.open(&page);
    for view in VIEWS {
        assert_eq!(browser.look(view), Vec::<String>::new(), "{view:?}");
    }
    let paper = browser.ask("Page.printToPDF", &json!({ "paperWidth": 8.27, "paperHeight": 11.69 }));
    assert!(paper["data"].as_str().is_some_and(|data| data.starts_with("JVBERi")), "no PDF");
    assert_eq!(browser.complaints(&page), Vec::<&Value>::new());
}
