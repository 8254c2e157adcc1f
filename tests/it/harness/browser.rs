//! A headless Chromium, driven through chromedriver, for the tests of the live page.
//!
//! Where Chromium is missing, its tests say so and pass; with `HOOKBRIDGE_REQUIRE_BROWSER=1` they fail.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::str::FromStr;

use fantoccini::wd::WebDriverCompatibleCommand;
use fantoccini::{Client, ClientBuilder};
use hyper::Method;
use hyper_util::client::legacy::connect::HttpConnector;
use reqwest::Url;
use serde_json::{Value, json};

use super::brokers::without;
use super::process::Running;

/// A running browser; it ends when dropped.
pub struct Browser {
    pub page: Client,
    _driver: Running,
}

impl Browser {
    /// A browser with an empty page; none where Chromium is missing.
    pub async fn start() -> Option<Browser> {
        let is_there = |program| Command::new(program).arg("--version").output().is_ok();
        if !is_there("chromium") || !is_there("chromedriver") {
            let reason = "chromium and chromedriver (Debian: chromium-driver) cannot be run";
            without("HOOKBRIDGE_REQUIRE_BROWSER", "IN A BROWSER", reason);
            return None;
        }
        let mut driver = Command::new("chromedriver");
        driver.arg("--port=0").stdout(Stdio::piped()).stderr(Stdio::null());
        let mut driver = Running(driver.spawn().expect("the driver"));
        let mut lines = BufReader::new(driver.0.stdout.take().expect("its output")).lines();
        let port = lines.find_map(|line| {
            let line = line.ok()?;
            let port = line.split("started successfully on port ").nth(1)?;
            port.trim_end_matches('.').parse::<u16>().ok()
        });
        // A full pipe would stop the driver.
        std::thread::spawn(move || lines.for_each(drop));
        let options = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--hide-scrollbars",
            // The names of an attacker who points them here.
            "--host-resolver-rules=MAP *.example 127.0.0.1",
        ];
        let capabilities = json!({
            "goog:chromeOptions": {"args": options},
            "goog:loggingPrefs": {"browser": "ALL"},
        });
        let Value::Object(capabilities) = capabilities else { unreachable!("an object") };
        let mut builder = ClientBuilder::new(HttpConnector::new());
        builder.capabilities(capabilities);
        let address = format!("http://127.0.0.1:{}", port.expect("the driver's port"));
        let page = builder.connect(&address).await.expect("a browser");
        Some(Browser { page, _driver: driver })
    }

    /// Runs a command of the DevTools protocol.
    async fn devtools(&self, command: &str, parameters: Value) -> Value {
        let body = json!({"cmd": command, "params": parameters});
        self.page.issue_cmd(Own { path: "goog/cdp/execute", body }).await.expect(command)
    }

    /// Sets the window's size and the theme: `light` or `dark`.
    pub async fn look_like(&self, width: u32, height: u32, theme: &str) {
        let size = json!({
            "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600
        });
        self.devtools("Emulation.setDeviceMetricsOverride", size).await;
        let theme = json!({"features": [{"name": "prefers-color-scheme", "value": theme}]});
        self.devtools("Emulation.setEmulatedMedia", theme).await;
    }

    /// Saves a picture of the whole page.
    pub async fn picture(&self, file: &Path) {
        let size =
            self.devtools("Page.getLayoutMetrics", json!({})).await["cssContentSize"].clone();
        let clip = json!({
            "x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1
        });
        let parameters = json!({"format": "png", "captureBeyondViewport": true, "clip": clip});
        let picture = self.devtools("Page.captureScreenshot", parameters).await;
        let bytes =
            data_encoding::BASE64.decode(picture["data"].as_str().expect("data").as_bytes());
        std::fs::create_dir_all(file.parent().expect("a folder")).expect("a folder");
        std::fs::write(file, bytes.expect("a picture")).expect("written");
    }

    /// Runs a script in the page and returns its result.
    pub async fn evaluate(&self, script: &str) -> Value {
        self.page.execute(&format!("return {script}"), vec![]).await.expect(script)
    }

    /// The browser's log messages since the last call.
    pub async fn complaints(&self) -> Vec<Value> {
        let body = json!({"type": "browser"});
        let lines = self.page.issue_cmd(Own { path: "se/log", body }).await.expect("the log");
        lines.as_array().expect("lines").clone()
    }
}

/// A command of chromedriver that WebDriver does not have.
#[derive(Debug)]
struct Own {
    path: &'static str,
    body: Value,
}

impl WebDriverCompatibleCommand for Own {
    fn endpoint(&self, base: &Url, session: Option<&str>) -> Result<Url, <Url as FromStr>::Err> {
        base.join(&format!("session/{}/{}", session.unwrap_or_default(), self.path))
    }

    fn method_and_body(&self, _url: &Url) -> (Method, Option<String>) {
        (Method::POST, Some(self.body.to_string()))
    }
}
