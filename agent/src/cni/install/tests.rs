//! Installing into configurations as main plugins write them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;

/// A list with an order, numbers and fields that must stay.
const LIST: &str = r#"{
  "name": "pods", "zeta": 1e3,
  "cniVersion": "1.0.0",
  "plugins": [
    {"type": "ptp", "mtu": 1450.0, "a": {"z": 1, "a": [ 1,2 ]}},
    {"type": "portmap", "capabilities": {"portMappings": true}}
  ],
  "disableCheck": true
}
"#;

/// One plugin without a list.
const SINGLE: &str =
    r#"{"cniVersion": "0.3.1", "name": "mynet", "type": "bridge", "ipam": {"type": "host-local"}}"#;

/// A node's directories and a program.
struct Node {
    dir: TempDir,
    installation: Installation,
}

impl Node {
    fn new(files: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let installation = Installation {
            configurations: dir.path().join("net.d"),
            plugins: dir.path().join("bin"),
        };
        fs::create_dir(&installation.configurations).unwrap();
        fs::write(dir.path().join("weir"), "program").unwrap();
        let node = Self { dir, installation };
        for (name, text) in files {
            node.write(name, text);
        }
        node
    }

    fn path(&self, name: &str) -> PathBuf {
        self.installation.configurations.join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    fn types(&self, name: &str) -> Vec<String> {
        let list: Value = serde_json::from_str(&self.read(name)).unwrap();
        let plugins = list["plugins"].as_array().unwrap().iter();
        plugins
            .map(|plugin| plugin["type"].as_str().unwrap().to_owned())
            .collect()
    }

    fn install(&self) -> Result<bool, InstallError> {
        self.installation
            .install(&self.dir.path().join("weir"), &settings())
    }

    /// Names of all files in both directories.
    fn files(&self) -> Vec<String> {
        let names = |directory: &Path| -> Vec<String> {
            let entries = fs::read_dir(directory).into_iter().flatten();
            entries
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect()
        };
        let mut all = names(&self.installation.configurations);
        all.extend(names(&self.installation.plugins));
        all.sort();
        all
    }
}

fn settings() -> Settings {
    Settings {
        run_dir: "/run/weir".into(),
        wait_seconds: 7,
        when_agent_is_down: WhenAgentIsDown::Fail,
    }
}

#[test]
fn the_entry_comes_last_and_everything_else_stays() {
    let node = Node::new(&[("10-pods.conflist", LIST), ("20-other.conflist", LIST)]);
    fs::set_permissions(node.path("10-pods.conflist"), Permissions::from_mode(0o640)).unwrap();
    assert!(!node.installation.is_installed().unwrap());
    assert!(node.install().unwrap());
    assert!(node.installation.is_installed().unwrap());
    let text = node.read("10-pods.conflist");
    for kept in [
        r#""mtu": 1450.0, "a": {"z": 1, "a": [ 1,2 ]}"#,
        r#""zeta": 1e3"#,
        r#""disableCheck": true"#,
    ] {
        assert!(text.contains(kept), "{kept} in {text}");
    }
    let order = ["name", "zeta", "cniVersion", "plugins", "disableCheck"];
    let places = order.map(|key| text.find(&format!("\n  \"{key}\":")).unwrap());
    assert!(places.is_sorted(), "{text}");
    let list: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        list["plugins"][2],
        json!({"type": "weir-cni", "runDir": "/run/weir", "waitSeconds": 7, "whenAgentIsDown": "fail"})
    );
    assert_eq!(
        node.read("20-other.conflist"),
        LIST,
        "runtimes take the first"
    );
    let rights = fs::metadata(node.path("10-pods.conflist")).unwrap();
    assert_eq!(rights.permissions().mode() & 0o777, 0o640);
    let program = node.installation.plugins.join(PLUGIN);
    assert_eq!(fs::read_to_string(&program).unwrap(), "program");
    let rights = fs::metadata(program).unwrap().permissions();
    assert_eq!(rights.mode() & 0o777, 0o755);
}

#[test]
fn twice_is_as_good_as_once_and_changes_no_file() {
    let node = Node::new(&[("10-pods.conflist", LIST)]);
    assert!(node.install().unwrap());
    let (text, files) = (node.read("10-pods.conflist"), node.files());
    // A second write would wake whoever watches the directory, this program among them.
    let written = fs::metadata(node.path("10-pods.conflist")).unwrap();
    assert!(!node.install().unwrap());
    let now = fs::metadata(node.path("10-pods.conflist")).unwrap();
    use std::os::unix::fs::MetadataExt;
    assert_eq!(written.ino(), now.ino());
    assert_eq!((node.read("10-pods.conflist"), node.files()), (text, files));
}

#[test]
fn it_comes_back_after_the_main_plugin_wrote_its_file_anew() {
    let node = Node::new(&[("10-pods.conflist", LIST)]);
    node.install().unwrap();
    node.write("10-pods.conflist", LIST);
    assert!(node.install().unwrap());
    assert_eq!(
        node.types("10-pods.conflist"),
        ["ptp", "portmap", "weir-cni"]
    );
    // Others that come later stand before it, and other settings count from now on.
    let text = node
        .read("10-pods.conflist")
        .replace(r#""waitSeconds":7"#, r#""waitSeconds":8"#);
    assert!(text.contains(r#""waitSeconds":8"#), "{text}");
    node.write("10-pods.conflist", &text.replace("portmap", "tuning"));
    assert!(node.install().unwrap());
    let list: Value = serde_json::from_str(&node.read("10-pods.conflist")).unwrap();
    assert_eq!(list["plugins"][2]["waitSeconds"], 7);
    assert_eq!(list["plugins"].as_array().unwrap().len(), 3);
}

#[test]
fn a_configuration_that_is_no_list_gets_a_list_before_it() {
    let node = Node::new(&[("10-net.conf", SINGLE)]);
    assert!(node.install().unwrap());
    assert!(!node.install().unwrap());
    assert_eq!(node.read("10-net.conf"), SINGLE);
    let list: Value = serde_json::from_str(&node.read(OWN_LIST)).unwrap();
    assert_eq!(list["cniVersion"], "0.3.1");
    assert_eq!(list["name"], "mynet");
    assert_eq!(
        list["plugins"][0],
        json!({"type": "bridge", "ipam": {"type": "host-local"}})
    );
    assert_eq!(list["plugins"][1]["type"], PLUGIN);
    assert!(node.installation.is_installed().unwrap());
    // The main plugin changes its mind, and its form.
    node.write("10-net.conf", &SINGLE.replace("bridge", "macvlan"));
    assert!(node.install().unwrap());
    assert_eq!(node.types(OWN_LIST), ["macvlan", "weir-cni"]);
    fs::remove_file(node.path("10-net.conf")).unwrap();
    node.write("10-net.conflist", LIST);
    assert!(node.install().unwrap());
    assert!(!node.path(OWN_LIST).exists());
    assert_eq!(
        node.types("10-net.conflist"),
        ["ptp", "portmap", "weir-cni"]
    );
}

#[test]
fn uninstalling_leaves_what_was_there() {
    for (name, text) in [("10-pods.conflist", LIST), ("10-net.conf", SINGLE)] {
        let node = Node::new(&[(name, text), ("99-odd.conflist", "{")]);
        node.install().unwrap();
        assert!(node.installation.uninstall().unwrap());
        assert_eq!(node.files(), [name, "99-odd.conflist"]);
        let value = |text: &str| serde_json::from_str::<Value>(text).unwrap();
        assert_eq!(value(&node.read(name)), value(text));
        assert!(!node.installation.uninstall().unwrap());
    }
}

#[test]
fn what_a_power_cut_left_is_removed_and_is_never_a_configuration() {
    let node = Node::new(&[("10-pods.conflist", LIST)]);
    node.write("05-gone.conflist.weir-new", "{\"plu");
    fs::create_dir(&node.installation.plugins).unwrap();
    fs::write(node.installation.plugins.join("weir-cni.weir-new"), "pro").unwrap();
    assert!(node.install().unwrap());
    assert_eq!(node.files(), ["10-pods.conflist", "weir-cni"]);
}

#[test]
fn what_cannot_be_installed_into_is_named_and_left_alone() {
    let node = Node::new(&[]);
    assert!(matches!(
        node.install(),
        Err(InstallError::NoConfiguration(_))
    ));
    for (name, text) in [
        ("10-half.conflist", "{\"plugins\": ["),
        ("10-none.conflist", "{\"name\": \"pods\"}"),
        ("10-array.conf", "[]"),
        ("-early.conf", SINGLE),
    ] {
        let node = Node::new(&[(name, text), ("20-good.conflist", LIST)]);
        let error = node.install().unwrap_err();
        assert!(error.to_string().contains(name), "{error}");
        assert_eq!(node.read(name), text);
        assert_eq!(node.read("20-good.conflist"), LIST);
    }
}
