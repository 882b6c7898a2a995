//! Real registries on free loopback ports: Debian's `docker-registry` over one storage folder, in three manners.

use crate::{
    command::{self, bounded, find, tied},
    fixtures::Fixtures,
    paths,
    push::Client,
};
use anyhow::{Context, Result, bail};
use std::{
    fs,
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Stdio},
    thread,
    time::{Duration, Instant},
};

/// `amphora` with the password `vessel`, as `htpasswd -nbB` writes it.
const PASSWORDS: &str = "amphora:$2y$05$9jB9TEBzGW5vBaFc1qrvDOHYK8L82.ponEjJ/OmvC0GJKrSmpi53C\n";
const START_LIMIT: Duration = Duration::from_secs(30);

/// How an instance is reached.
#[derive(Clone, Copy)]
enum Manner {
    Open,
    WithPassword,
    Encrypted,
}

/// The three instances; they end when this is dropped.
pub(crate) struct Registries {
    open: Instance,
    with_password: Instance,
    encrypted: Instance,
    authority: PathBuf,
}

impl Registries {
    /// Starts them and pushes every image that is not in the storage yet.
    ///
    /// `None` if the registry is not installed.
    pub(crate) fn start(fixtures: &Fixtures) -> Result<Option<Self>> {
        if find("docker-registry").is_none() {
            return Ok(None);
        }
        let authority = certificates(fixtures)?;
        let open = Instance::start(Manner::Open)?;
        push_all(&open.address, fixtures)?;
        let with_password = Instance::start(Manner::WithPassword)?;
        let encrypted = Instance::start(Manner::Encrypted)?;
        Ok(Some(Self { open, with_password, encrypted, authority }))
    }

    /// What tests need to know to use them.
    pub(crate) fn environment(&self) -> Vec<(&'static str, String)> {
        vec![
            ("AMPHORA_TEST_REGISTRY", self.open.address.clone()),
            ("AMPHORA_TEST_REGISTRY_AUTH", self.with_password.address.clone()),
            ("AMPHORA_TEST_REGISTRY_TLS", self.encrypted.address.clone()),
            ("AMPHORA_TEST_REGISTRY_CA", self.authority.display().to_string()),
        ]
    }

    /// The one that asks for nothing.
    pub(crate) fn open_address(&self) -> &str {
        &self.open.address
    }

    /// The configuration files, for the same registries in another machine.
    pub(crate) fn configurations(&self) -> Vec<PathBuf> {
        [&self.open, &self.with_password, &self.encrypted].map(|instance| instance.configuration.clone()).to_vec()
    }
}

/// One running registry.
struct Instance {
    process: Child,
    configuration: PathBuf,
    address: String,
}

impl Instance {
    fn start(manner: Manner) -> Result<Self> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let configuration = paths::fixtures().join(format!(".registry-{port}.yml"));
        fs::write(&configuration, configuration_text(manner, port)?)?;
        let mut command = tied(&find("docker-registry").context("docker-registry is not installed")?);
        command.arg("serve").arg(&configuration).stdout(Stdio::null()).stderr(Stdio::null());
        let process = command.spawn().context("cannot start docker-registry")?;
        let mut instance = Self { process, configuration, address: format!("localhost:{port}") };
        instance.wait_until_ready(port)?;
        Ok(instance)
    }

    fn wait_until_ready(&mut self, port: u16) -> Result<()> {
        let begun = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if let Some(status) = self.process.try_wait()? {
                bail!("docker-registry ended at once with {status}; see `docker-registry serve` for why");
            }
            if begun.elapsed() > START_LIMIT {
                bail!("docker-registry does not listen on port {port} after {START_LIMIT:?}");
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        // Its exit status is of no interest, and neither is that it may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = fs::remove_file(&self.configuration);
    }
}

fn configuration_text(manner: Manner, port: u16) -> Result<String> {
    let folder = paths::fixtures();
    let shown = |name: &str| folder.join(name).display().to_string();
    let mut text = format!(
        "version: 0.1\nlog: {{ level: error }}\n\
         storage: {{ filesystem: {{ rootdirectory: {} }}, maintenance: {{ uploadpurging: {{ enabled: false }} }} }}\n",
        shown("registry")
    );
    let tls = format!(", tls: {{ certificate: {}, key: {} }}", shown("tls/server.pem"), shown("tls/server.key"));
    let tls = if matches!(manner, Manner::Encrypted) { tls.as_str() } else { "" };
    text += &format!("http: {{ addr: 'localhost:{port}', secret: amphora{tls} }}\n");
    if matches!(manner, Manner::WithPassword) {
        fs::write(folder.join("htpasswd"), PASSWORDS)?;
        text += &format!("auth: {{ htpasswd: {{ realm: test, path: {} }} }}\n", shown("htpasswd"));
    }
    Ok(text)
}

/// Pushes each layout; its folder is called `NAME-TAG`, its index says `NAME:TAG`.
fn push_all(address: &str, fixtures: &Fixtures) -> Result<()> {
    let client = Client { address };
    for entry in fs::read_dir(fixtures.path("layouts"))? {
        let layout = entry?.path();
        let index: serde_json::Value = serde_json::from_str(&command::read_text(&layout.join("index.json"))?)?;
        let name = index["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"].as_str();
        let (name, tag) = name.and_then(|name| name.split_once(':')).context("a layout without a name")?;
        client.push(&layout, name, tag)?;
    }
    Ok(())
}

/// A certificate authority and a server's certificate for `localhost`; gives the authority's path.
fn certificates(fixtures: &Fixtures) -> Result<PathBuf> {
    fixtures.keep("tls", "localhost 1", |folder| {
        fs::create_dir_all(folder)?;
        let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "3650"];
        openssl(folder, &key, &["-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=Amphora test authority"])?;
        let issuer = ["-CA", "ca.pem", "-CAkey", "ca.key", "-keyout", "server.key", "-out", "server.pem"];
        let subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"];
        let leaf = ["-addext", "basicConstraints=critical,CA:FALSE"];
        openssl(folder, &key, &[issuer.as_slice(), &subject, &leaf].concat())
    })?;
    Ok(fixtures.path("tls/ca.pem"))
}

fn openssl(folder: &Path, key: &[&str], arguments: &[&str]) -> Result<()> {
    let mut openssl = bounded("openssl", Duration::from_secs(60));
    openssl.args(["req", "-x509"]).args(key).args(arguments).current_dir(folder);
    command::run(&mut openssl).map(drop)
}
