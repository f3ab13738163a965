//! What reads strangers' bytes, and what must hold whatever those are.
//!
//! Each target panics where it does not hold. The inputs under `corpus` are gone through with every run of the tests; `cargo xtask fuzz`
//! begins with them and looks for others.

mod admin;
mod announcements;
mod cni;
mod manifests;
mod packet;

/// Something that reads bytes.
pub struct Target {
    /// Its name, and that of its directory under `corpus`.
    pub name: &'static str,
    /// Reads the bytes.
    ///
    /// # Panics
    /// Where something does not hold.
    pub check: fn(&[u8]),
}

/// Every target.
pub const TARGETS: [Target; 5] = [
    Target {
        name: "admin",
        check: admin::check,
    },
    Target {
        name: "announcements",
        check: announcements::check,
    },
    Target {
        name: "cni",
        check: cni::check,
    },
    Target {
        name: "manifests",
        check: manifests::check,
    },
    Target {
        name: "packet",
        check: packet::check,
    },
];

/// The target of a name.
#[must_use]
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::target;

    /// Goes through a target's corpus.
    fn corpus(name: &str) {
        let target = target(name).unwrap();
        let directory = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("corpus")
            .join(name);
        let mut count = 0;
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            println!("{}", path.display());
            (target.check)(&fs::read(path).unwrap());
            count += 1;
        }
        assert!(count >= 10, "{count} inputs");
    }

    #[test]
    fn admin() {
        corpus("admin");
    }

    #[test]
    fn announcements() {
        corpus("announcements");
    }

    #[test]
    fn cni() {
        corpus("cni");
    }

    #[test]
    fn manifests() {
        corpus("manifests");
    }

    #[test]
    fn packet() {
        corpus("packet");
    }
}
