//! A headless Chromium, driven through its DevTools protocol.
//!
//! The protocol runs over two pipes (`--remote-debugging-pipe`), with messages that end with a zero byte. This needs no
//! WebSocket, no port, and no packages of others, such as Playwright.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use portico_e2e::wait::until;
use serde_json::{Value, json};

/// A running browser, which is killed on drop.
pub(crate) struct Chromium {
    process: Child,
    commands: File,
    messages: Receiver<Value>,
    last_id: u64,
    log: std::path::PathBuf,
}

/// One tab.
#[derive(Clone, Debug)]
pub(crate) struct Tab {
    session: String,
}

impl Chromium {
    /// Starts the browser with its profile in a folder. Names that end with `.example` are this machine.
    pub(crate) fn start(folder: &Path) -> Result<Chromium> {
        let [commands, messages] = ["commands", "messages"].map(|name| folder.join(name));
        let made = Command::new("mkfifo").args([&commands, &messages]).status().context("cannot start mkfifo")?;
        ensure!(made.success(), "cannot make pipes in {}", folder.display());
        let log = folder.join("chromium.log");
        // The browser reads commands from descriptor 3 and writes messages to 4. A pipe is opened when both sides do.
        let process = Command::new("sh")
            .args(["-c", r#"exec "$@" 3<"$COMMANDS" 4>"$MESSAGES""#, "sh", "chromium"])
            .args(FLAGS)
            .arg(format!("--user-data-dir={}", folder.join("profile").display()))
            .env("COMMANDS", &commands)
            .env("MESSAGES", &messages)
            .env("HOME", folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log)?)
            .spawn()
            .context("cannot start sh")?;
        let commands = File::options().write(true).open(&commands).context("cannot write commands")?;
        let mut pipe = BufReader::new(File::open(&messages).context("cannot read messages")?);
        // The reader waits while the queue is full, and ends with the browser.
        let (sender, messages) = sync_channel(1000);
        thread::spawn(move || {
            loop {
                let mut message = Vec::new();
                if !matches!(pipe.read_until(0, &mut message), Ok(1..)) {
                    return;
                }
                let message = message.strip_suffix(&[0]).unwrap_or(&message);
                let Ok(message) = serde_json::from_slice(message) else { return };
                if sender.send(message).is_err() {
                    return;
                }
            }
        });
        Ok(Chromium { process, commands, messages, last_id: 0, log })
    }

    /// Opens an empty tab, which shares the cookies of all others.
    pub(crate) fn open_tab(&mut self) -> Result<Tab> {
        let target = self.call(None, "Target.createTarget", json!({ "url": "about:blank" }))?;
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let attached = self.call(None, "Target.attachToTarget", attach)?;
        let session = attached["sessionId"].as_str().context("the browser returned no session")?.to_owned();
        Ok(Tab { session })
    }

    /// Opens a URL as if it was typed, and waits for the response.
    pub(crate) fn open(&mut self, tab: &Tab, url: &str) -> Result<()> {
        let result = self.call(Some(tab), "Page.navigate", json!({ "url": url }))?;
        ensure!(result.get("errorText").is_none(), "cannot open {url}: {}", result["errorText"]);
        Ok(())
    }

    /// The value of a JavaScript expression in the page, or of its promise. An exception is an error.
    pub(crate) fn evaluate(&mut self, tab: &Tab, expression: &str) -> Result<Value> {
        let parameters = json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let result = self.call(Some(tab), "Runtime.evaluate", parameters)?;
        ensure!(result.get("exceptionDetails").is_none(), "{expression}: {}", result["exceptionDetails"]);
        Ok(result["result"]["value"].clone())
    }

    /// Waits until an expression is true in the page, which may still load or be replaced by another one.
    pub(crate) async fn wait_for(&mut self, tab: &Tab, expression: &str) -> Result<()> {
        until(expression, PAGE_TIMEOUT, async || {
            let value = self.evaluate(tab, expression)?;
            if value == Value::Bool(true) {
                return Ok(());
            }
            let page = self.evaluate(tab, "location.href + '\\n' + document.body?.innerText.slice(0, 2000)")?;
            bail!("the page is {page}")
        })
        .await
    }

    /// Types a text into the field that a selector finds.
    pub(crate) fn type_into(&mut self, tab: &Tab, selector: &str, text: &str) -> Result<()> {
        self.evaluate(tab, &format!("document.querySelector({}).focus()", json!(selector)))?;
        self.call(Some(tab), "Input.insertText", json!({ "text": text })).map(drop)
    }

    /// Clicks on what a selector finds.
    pub(crate) fn click(&mut self, tab: &Tab, selector: &str) -> Result<()> {
        self.evaluate(tab, &format!("document.querySelector({}).click()", json!(selector))).map(drop)
    }

    /// The cookies that the browser would send to a URL.
    pub(crate) fn cookies(&mut self, tab: &Tab, url: &str) -> Result<Vec<Value>> {
        let result = self.call(Some(tab), "Network.getCookies", json!({ "urls": [url] }))?;
        Ok(result["cookies"].as_array().context("the browser returned no cookies")?.clone())
    }

    fn call(&mut self, tab: Option<&Tab>, method: &str, parameters: Value) -> Result<Value> {
        self.last_id += 1;
        let mut command = json!({ "id": self.last_id, "method": method, "params": parameters });
        if let Some(tab) = tab {
            command["sessionId"] = tab.session.clone().into();
        }
        let written = self.commands.write_all(format!("{command}\0").as_bytes());
        written.with_context(|| format!("the browser has ended. {}", self.end_of_log()))?;
        loop {
            let message = match self.messages.recv_timeout(CALL_TIMEOUT) {
                Ok(message) => message,
                Err(RecvTimeoutError::Timeout) => bail!("{method} has no result. {}", self.end_of_log()),
                Err(RecvTimeoutError::Disconnected) => bail!("the browser has ended. {}", self.end_of_log()),
            };
            // Other messages are events, which the tests do not use.
            if message["id"] == self.last_id {
                ensure!(message.get("error").is_none(), "{method}: {}", message["error"]);
                return Ok(message["result"].clone());
            }
        }
    }

    fn end_of_log(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        format!("Its log ends with:\n{}", lines[lines.len().saturating_sub(15)..].join("\n"))
    }
}

impl Drop for Chromium {
    fn drop(&mut self) {
        // Its children end with it. It may have ended.
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

/// The sandbox does not work for root. Everything that contacts servers of Google is off.
const FLAGS: [&str; 12] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-features=HttpsUpgrades,HttpsFirstBalancedModeAutoEnable",
    "--no-first-run",
    "--ignore-certificate-errors",
    "--host-resolver-rules=MAP *.example 127.0.0.1",
    "--remote-debugging-pipe",
    "--disable-sync",
];
/// How long a command may take on a busy machine.
const CALL_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a page may take.
const PAGE_TIMEOUT: Duration = Duration::from_secs(60);
