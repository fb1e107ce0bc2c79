//! nginx: pages, downloads and uploads on port 80.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;

use super::await_start;
use crate::cgroup::Groups;
use crate::node::Node;
use crate::process::Process;
use crate::topology::SERVER;

/// Sizes of the pages in bytes, from an icon to a small script.
pub const PAGES: [u32; 6] = [300, 900, 2_500, 6_000, 12_000, 30_000];
/// Sizes of the downloads in KiB.
pub const DOWNLOADS: [u32; 4] = [100, 250, 500, 1_000];

/// A download without end, by the measure of a run: 64 MiB.
pub const BULK: &str = "/bulk";
const BULK_KIB: u32 = 64 * 1024;

pub struct Nginx {
    process: Process,
    directory: PathBuf,
}

impl Nginx {
    /// Serves files from below `directory`, which must be fresh.
    pub fn start(node: &Node, groups: &Groups, directory: &Path) -> Result<Self> {
        let documents = directory.join("documents");
        write_documents(&documents)?;
        write(&directory.join("fault-http.conf"), "")?;
        write(&directory.join("fault-server.conf"), "")?;
        let file = directory.join("nginx.conf");
        write(&file, &configuration(directory))?;
        let mut nginx = Command::new("nginx");
        nginx.arg("-c").arg(&file);
        let mut process = node.spawn("nginx", groups.joined(&nginx))?;
        await_start("nginx", || {
            process.expect_running()?;
            listens(node, 80)
        })?;
        Ok(Self { process, directory: directory.to_owned() })
    }

    /// Puts these directives into the blocks `http` and `server`, as a bad deployment would, and reloads.
    pub fn deploy(&self, http: &str, server: &str) -> Result<()> {
        write(&self.directory.join("fault-http.conf"), http)?;
        write(&self.directory.join("fault-server.conf"), server)?;
        self.process.signal(Signal::SIGHUP)
    }

    /// How many requests it has answered with that status, by its own log.
    pub fn answered(&self, status: u16) -> Result<u64> {
        let log = self.directory.join("status.log");
        let text = fs::read_to_string(&log).with_context(|| format!("cannot read {}", log.display()))?;
        let wanted = status.to_string();
        Ok(text.lines().filter(|line| *line == wanted).count() as u64)
    }
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// Whether something listens on that TCP port of the node.
fn listens(node: &Node, port: u16) -> Result<bool> {
    // State 0A is LISTEN; the port is hexadecimal.
    let wanted = format!(":{port:04X}");
    Ok(node.proc_net("tcp")?.lines().any(|line| {
        let mut fields = line.split_whitespace().skip(1);
        fields.next().is_some_and(|local| local.ends_with(&wanted)) && fields.nth(1) == Some("0A")
    }))
}

fn write_documents(documents: &Path) -> Result<()> {
    let pages = PAGES.map(|size| (format!("page-{size}"), size));
    let bulk = (BULK.trim_start_matches('/').to_owned(), BULK_KIB * 1024);
    let downloads = DOWNLOADS.map(|size| (format!("download-{size}"), size * 1024));
    fs::create_dir_all(documents.join("upload"))
        .with_context(|| format!("cannot create {}", documents.display()))?;
    for (name, size) in pages.into_iter().chain(downloads).chain([bulk]) {
        let path = documents.join(name);
        fs::write(&path, vec![b'.'; size as usize])
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

fn configuration(directory: &Path) -> String {
    let here = directory.display();
    format!(
        "daemon off;
user root;
worker_processes 1;
pid {here}/nginx.pid;
error_log {here}/error.log warn;
events {{ worker_connections 2048; }}
http {{
    log_format status $status;
    access_log {here}/status.log status;
    keepalive_timeout 75s;
    keepalive_requests 100000;
    client_body_temp_path {here}/body;
    proxy_temp_path {here}/proxy;
    fastcgi_temp_path {here}/fastcgi;
    uwsgi_temp_path {here}/uwsgi;
    scgi_temp_path {here}/scgi;
    include {here}/fault-http.conf;
    server {{
        listen {SERVER}:80 backlog=128;
        root {here}/documents;
        client_max_body_size 16m;
        dav_methods PUT;
        # Downloads come from the disk each time, as from a store that does not fit into memory.
        directio 64k;
        include {here}/fault-server.conf;
    }}
}}
"
    )
}
