//! What operators get in `engine/examples/scale-out` for servers that come and go: it can be read by the
//! tools that it is for, as far as they are here, and names only what there is.

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use common::program::path_of;
use common::{PLENUM, Server, scratch};
use yaml_rust2::{Yaml, YamlLoader};

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/scale-out")
}

fn read(name: &str) -> String {
    fs::read_to_string(examples().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// A directory that goes with the test.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = scratch(name);
        fs::create_dir_all(&path).expect("a scratch directory");
        Self(path)
    }

    fn write(&self, name: &str, content: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, content).expect("a file");
        path
    }

    fn write_program(&self, name: &str, content: &str) {
        let path = self.write(name, content);
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("a mode");
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[track_caller]
fn check_succeeds(output: &Output) {
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
}

/// The settings of a server, as it gets them from its environment.
#[track_caller]
fn check_settings(settings: &[(String, String)], file: Option<&Path>) {
    assert!(settings.len() > 2, "{settings:?}");
    let mut command = Command::new(PLENUM);
    command.arg("check");
    if let Some(file) = file {
        command.arg("-c").arg(file);
    }
    let settings = settings.iter().map(|(name, value)| (name, value));
    check_succeeds(&command.envs(settings).output().expect("plenum runs"));
}

fn setting(name: impl Into<String>, value: impl Into<String>) -> (String, String) {
    (name.into(), value.into())
}

#[test]
fn systemds_unit_can_be_loaded_and_its_configuration_used() {
    let environment = read("systemd/C.env");
    let mut settings: Vec<_> = environment
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.split_once('=').expect("a setting"))
        .map(|(name, value)| setting(name, value))
        .collect();
    settings.push(setting("PLENUM_SERVER_ID", "C"));
    check_settings(&settings, Some(&examples().join("systemd/plenum.toml")));

    if path_of("systemd-analyze").is_none() {
        eprintln!("skipped: systemd-analyze is not installed, which would verify the unit");
        return;
    }
    // It looks for the program, and for nothing else that is not there.
    let directory = Directory::new("unit");
    let unit = read("systemd/plenum@.service");
    assert!(unit.contains("/usr/local/bin/plenum "));
    let unit = unit.replace("/usr/local/bin/plenum ", &format!("{PLENUM} "));
    directory.write("plenum@.service", &unit);
    let instance = directory.0.join("plenum@C.service");
    std::os::unix::fs::symlink("plenum@.service", &instance).expect("a link");
    let output = Command::new("systemd-analyze")
        .args(["verify", "--man=no", "--recursive-errors=no"])
        .arg(&instance)
        .output()
        .expect("systemd-analyze runs");
    check_succeeds(&output);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!said.contains("plenum@"), "{said}");
}

/// Runs a hook with programs before it on the path that only say how they were called.
fn run_hook(directory: &Directory, hook: &str, arguments: [&str; 2]) -> Vec<String> {
    let log = directory.write("log", "");
    let path = std::env::var("PATH").unwrap_or_default();
    let output = Command::new(examples().join(hook))
        .args(arguments)
        .env("PATH", format!("{}:{path}", directory.0.display()))
        .env("LOG", &log)
        .output()
        .expect("the hook runs");
    check_succeeds(&output);
    let log = fs::read_to_string(log).expect("a log");
    log.lines().map(str::to_owned).collect()
}

/// Says how it was called, then does this.
fn recorder(name: &str, then: &str) -> String {
    format!("#!/bin/sh\necho \"{name} $*\" >>\"$LOG\"\n{then}\n")
}

#[test]
fn systemds_hook_starts_the_unit_here_or_by_ssh() {
    let directory = Directory::new("systemd-hook");
    directory.write_program("systemctl", &recorder("systemctl", ""));
    let addresses = "echo '2: eth0    inet 192.0.2.1/24 brd 192.0.2.255 scope global eth0'; \
                     echo '2: eth0    inet6 2001:db8::1/64 scope global'";
    directory.write_program("ip", &format!("#!/bin/sh\n{addresses}\n"));
    let table = [
        ("start", "sip:cfw@192.0.2.1:5060", "", "start"),
        ("stop", "sip:cfw@192.0.2.1:5060;transport=tcp", "", "stop"),
        ("start", "sip:cfw@[2001:db8::1]:5060", "", "start"),
        ("start", "sip:cfw@192.0.2.13:5060", "192.0.2.13", "start"),
        ("stop", "sip:cfw@192.0.2.13", "192.0.2.13", "stop"),
        ("start", "sip:cfw@[2001:db8::2]", "2001:db8::2", "start"),
    ];
    for (hook, uri, host, verb) in table {
        let said = run_hook(&directory, &format!("systemd/{hook}"), ["C", uri]);
        let host = match host {
            "" => String::new(),
            host => format!("--host=plenum@{host} "),
        };
        let expected = format!("systemctl --no-block {host}{verb} plenum@C.service");
        assert_eq!(said, [expected], "{uri}");
    }
}

#[test]
fn nomads_hook_scales_the_group_of_the_server() {
    let directory = Directory::new("nomad-hook");
    directory.write_program("nomad", &recorder("nomad", ""));
    for (hook, count) in [("start", 1), ("stop", 0)] {
        let arguments = ["C", "sip:cfw@192.0.2.13:5060"];
        let said = run_hook(&directory, &format!("nomad/{hook}"), arguments);
        let expected = format!("nomad job scale -detach plenum-reserved C {count}");
        assert_eq!(said, [expected]);
    }
}

#[test]
fn kubernetes_hook_changes_the_number_of_pods_by_the_last_one() {
    let directory = Directory::new("kubernetes-hook");
    let asked = "kubectl get statefulset plenum -o jsonpath={.spec.replicas}";
    let scaled = |number| format!("kubectl scale statefulset plenum --replicas={number}");
    let table = [
        ("start", "plenum-2", 2, Some(3)),
        ("start", "plenum-3", 2, Some(4)),
        // It has been started already, by somebody else who wants it.
        ("start", "plenum-2", 3, None),
        ("stop", "plenum-2", 3, Some(2)),
        // There is one behind it.
        ("stop", "plenum-2", 4, None),
        ("stop", "plenum-2", 2, None),
    ];
    for (hook, svr_id, now, expected) in table {
        let answer = format!("[ \"$1\" != get ] || echo {now}");
        directory.write_program("kubectl", &recorder("kubectl", &answer));
        let uri = format!("sip:cfw@{svr_id}.plenum:5060");
        let said = run_hook(&directory, &format!("kubernetes/{hook}"), [svr_id, &uri]);
        let mut all = vec![asked.to_owned()];
        all.extend(expected.map(scaled));
        assert_eq!(said, all, "{hook} {svr_id} of {now}");
    }
}

/// The settings of a job's task, with this machine's address where Nomad puts its own.
fn settings_of_job(name: &str) -> Vec<(String, String)> {
    let body: hcl::Body = hcl::from_str(&read(name)).unwrap_or_else(|error| panic!("{error}"));
    let inner = |body: &hcl::Body, kind: &str| {
        let found = body.blocks().find(|block| block.identifier() == kind);
        found.unwrap_or_else(|| panic!("no {kind}")).body().clone()
    };
    let job = inner(&body, "job");
    let task = inner(&inner(&job, "group"), "task");
    let text = |attribute: &hcl::Attribute| match attribute.expr() {
        hcl::Expression::String(text) => text.clone(),
        hcl::Expression::TemplateExpr(template) => template.to_string(),
        other => panic!("{other:?}"),
    };
    let environment = inner(&task, "env");
    let settings = environment.attributes().map(|attribute| {
        let value = text(attribute).trim_matches('"').to_owned();
        let value = value
            .replace("${attr.unique.network.ip-address}", "127.0.0.1")
            .replace("${NOMAD_ALLOC_INDEX}", "0");
        assert!(!value.contains("${"), "{value}");
        setting(attribute.key(), value)
    });
    settings.collect()
}

#[test]
fn nomads_jobs_can_be_read_and_their_settings_used() {
    let mut settings = settings_of_job("nomad/plenum.nomad.hcl");
    // As its template has it with nobody there, and with two.
    for peers in ["", "sip:cfw@127.0.0.2:5060,sip:cfw@127.0.0.3:5060"] {
        settings.push(setting("PLENUM_CLUSTER_PEERS", peers));
        check_settings(&settings, None);
        settings.pop();
    }
    let settings = settings_of_job("nomad/reserved.nomad.hcl");
    check_settings(&settings, None);
    let id = settings.iter().find(|(name, _)| name == "PLENUM_SERVER_ID");
    assert_eq!(id.map(|(_, id)| id.as_str()), Some("C"));
}

/// Every document of a file has what Kubernetes asks of all.
fn documents(name: &str) -> Vec<Yaml> {
    let documents = YamlLoader::load_from_str(&read(name)).unwrap_or_else(|e| panic!("{name} {e}"));
    for document in &documents {
        for key in ["apiVersion", "kind"] {
            assert!(document[key].as_str().is_some(), "{key} in {name}");
        }
        assert!(document["metadata"]["name"].as_str().is_some(), "{name}");
    }
    documents
}

fn of_kind<'a>(documents: &'a [Yaml], kind: &str) -> &'a Yaml {
    let found = documents
        .iter()
        .find(|one| one["kind"].as_str() == Some(kind));
    found.unwrap_or_else(|| panic!("no {kind}"))
}

#[test]
fn kubernetes_files_can_be_read_and_their_settings_used() {
    let servers = documents("kubernetes/plenum.yaml");
    let set = of_kind(&servers, "StatefulSet");
    let pod = &set["spec"]["template"];
    let container = &pod["spec"]["containers"][0];
    let settings = |environment: &Yaml| -> Vec<(String, String)> {
        let one = |variable: &Yaml| {
            let name = variable["name"].as_str().expect("a name");
            let value = match variable["value"].as_str() {
                Some(value) => value.replace("$(POD_IP)", "127.0.0.1"),
                None if name == "PLENUM_SERVER_ID" => "plenum-0".to_owned(),
                None => "127.0.0.1".to_owned(),
            };
            setting(name, value)
        };
        environment
            .as_vec()
            .expect("a list")
            .iter()
            .map(one)
            .collect()
    };
    check_settings(&settings(&container["env"]), None);

    // What the comment of hooks.yaml has one add.
    let hooks = read("kubernetes/hooks.yaml");
    let added: String = hooks
        .lines()
        .filter_map(|line| line.strip_prefix("#   "))
        .map(|line| format!("{line}\n"))
        .collect();
    let added = YamlLoader::load_from_str(&added).expect("YAML");
    check_settings(&settings(&added[0]), None);

    // Everything speaks of the same pods, and of the same account.
    let labels = &pod["metadata"]["labels"];
    assert_eq!(&set["spec"]["selector"]["matchLabels"], labels);
    assert_eq!(&of_kind(&servers, "Service")["spec"]["selector"], labels);
    let name = set["metadata"]["name"].as_str();
    assert_eq!(set["spec"]["serviceName"].as_str(), name);
    let scaler = documents("kubernetes/hpa.yaml");
    let scaler = &of_kind(&scaler, "HorizontalPodAutoscaler")["spec"];
    assert_eq!(scaler["scaleTargetRef"]["name"].as_str(), name);
    assert_eq!(
        scaler["scaleTargetRef"]["kind"].as_str(),
        set["kind"].as_str()
    );
    assert_eq!(scaler["minReplicas"], set["spec"]["replicas"]);
    let account = &of_kind(&servers, "ServiceAccount")["metadata"]["name"];
    assert_eq!(&pod["spec"]["serviceAccountName"], account);
    let hooks = documents("kubernetes/hooks.yaml");
    let binding = of_kind(&hooks, "RoleBinding");
    assert_eq!(&binding["subjects"][0]["name"], account);
    let role = of_kind(&hooks, "Role");
    assert_eq!(binding["roleRef"]["name"], role["metadata"]["name"]);
    for rule in role["rules"].as_vec().expect("rules") {
        assert_eq!(rule["resourceNames"][0].as_str(), name);
    }

    // The scaler reads the metric that the adapter makes.
    let adapter = read("kubernetes/prometheus-adapter.yaml");
    let adapter = YamlLoader::load_from_str(&adapter).expect("YAML");
    let made = &adapter[0]["rules"]["custom"][0]["name"]["as"];
    assert!(made.as_str().is_some());
    assert_eq!(&scaler["metrics"][0]["pods"]["metric"]["name"], made);
}

/// What looks like a metric in a file.
fn metrics_in(text: &str) -> BTreeSet<String> {
    let is_part = |c: char| c.is_ascii_lowercase() || c == '_';
    text.split(|c| !is_part(c))
        .filter(|word| word.starts_with("plenum_"))
        .map(str::to_owned)
        .collect()
}

#[test]
fn scalers_read_metrics_that_a_server_has() {
    let adapter = read("kubernetes/prometheus-adapter.yaml");
    let made = "plenum_load_ratio";
    assert!(adapter.contains(made));
    let files = [adapter, read("nomad/plenum.nomad.hcl"), read("README.md")];
    let mut named: BTreeSet<String> = files.iter().flat_map(|text| metrics_in(text)).collect();
    named.remove(made);
    assert!(named.contains("plenum_load") && named.contains("plenum_load_max"));
    let server = Server::start(&["load.max=500"]);
    for name in named {
        server.metric(&name);
    }
    assert_eq!(server.metric("plenum_load_max"), 500.0);
}
