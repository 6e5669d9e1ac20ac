//! The shipped policy documents against the plans in `policies/cases`, without a guest.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::LazyLock;

use serde::Deserialize;

use crate::plugin::plan::CheckedPlan;
use crate::plugin::policy::Policies;
use crate::plugin::types::{
    Argument, Budget, Content, EnvValue, EnvVar, FileEntry, FileMode, LaunchPlan, Location, Place,
    SessionPlan, Source, StopPlan,
};
use crate::plugin::{
    Code, EffectiveGrants, Grant, GrantKind, Grants, Layer, LayerFile, Limits, PluginError, Role,
};

/// Read once: the cases are many.
static POLICIES: LazyLock<Policies> = LazyLock::new(|| Policies::bundled().unwrap());

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Suite {
    program: String,
    arguments: Vec<Word>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    #[serde(default)]
    files: BTreeMap<String, String>,
    #[serde(default)]
    copied: BTreeMap<String, String>,
    /// In the place of the suite's arguments.
    base: Option<Vec<Word>>,
    #[serde(default)]
    arguments: Vec<Word>,
    #[serde(default)]
    env: BTreeMap<String, String>,
    #[serde(default)]
    needs: Vec<Grant>,
    refused: Option<Code>,
}

#[derive(Clone, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
enum Word {
    Text(String),
    Path {
        #[serde(default)]
        prefix: String,
        place: Option<String>,
        path: String,
    },
}

impl Word {
    fn argument(&self) -> Argument {
        match self {
            Self::Text(text) => Argument::Literal(text.clone()),
            Self::Path {
                prefix,
                place,
                path,
            } => Argument::Path(Location {
                prefix: prefix.clone(),
                place: if place.is_some() {
                    Place::WorkDir
                } else {
                    Place::ConfigDir
                },
                path: path.clone(),
            }),
        }
    }
}

impl Case {
    fn plan(&self, suite: &Suite) -> (LaunchPlan, Vec<Layer>) {
        let bytes = |(path, text): (&String, &String)| FileEntry {
            path: path.clone(),
            content: Content::Bytes(text.clone().into_bytes()),
            mode: FileMode::Regular,
        };
        let copy = |path: &String| FileEntry {
            path: path.clone(),
            content: Content::Copy(Source {
                layer: 0,
                path: path.clone(),
            }),
            mode: FileMode::Regular,
        };
        let file = |(path, text): (&String, &String)| LayerFile {
            path: path.clone(),
            executable: false,
            bytes: text.clone().into(),
        };
        let base = self.base.as_ref().unwrap_or(&suite.arguments);
        let env = |(name, value): (&String, &String)| EnvVar {
            name: name.clone(),
            value: EnvValue::Literal(value.clone()),
        };
        let plan = LaunchPlan {
            files: self
                .files
                .iter()
                .map(bytes)
                .chain(self.copied.keys().map(copy))
                .collect(),
            keep: Vec::new(),
            program: suite.program.clone(),
            arguments: base
                .iter()
                .chain(&self.arguments)
                .map(Word::argument)
                .collect(),
            env: self.env.iter().map(env).collect(),
            stdin: None,
            time_limit: None,
            budget: Budget {
                cost_usd: None,
                turns: None,
            },
            session: SessionPlan {
                id: None,
                transcript: None,
            },
            stop: StopPlan::Terminate,
        };
        let layer = Layer {
            name: "layer".to_owned(),
            settings: serde_json::json!({}),
            files: self.copied.iter().map(file).collect(),
        };
        (plan, vec![layer])
    }

    fn check(&self, suite: &Suite, granted: &Grants) -> Result<CheckedPlan, PluginError> {
        let all = Grants::all();
        let grants = EffectiveGrants::new(&all, granted, &all, Role::Plugin);
        let (plan, layers) = self.plan(suite);
        CheckedPlan::new(plan, &layers, &Limits::default(), &POLICIES, &grants)
    }

    fn run(&self, suite: &Suite) {
        let name = &self.name;
        if let Some(code) = self.refused {
            let error = self.check(suite, &Grants::all()).unwrap_err();
            assert_eq!(error.code, code, "{name}: {error}");
            return;
        }
        let program = Grant::new(GrantKind::Program, &suite.program);
        let mut needed = self.needs.clone();
        needed.push(program);
        if let Err(error) = self.check(suite, &needed.iter().cloned().collect()) {
            panic!("{name}: {error}");
        }
        for missing in &needed {
            let rest = needed
                .iter()
                .filter(|grant| *grant != missing)
                .cloned()
                .collect();
            let error = self.check(suite, &rest).unwrap_err();
            assert_eq!(error.code, Code::Grant, "{name}: {error}");
            assert_eq!(
                error.grant.as_deref(),
                Some(missing.to_string().as_str()),
                "{name}"
            );
            assert!(error.remedy.contains("profile.yml"), "{name}: {error}");
        }
    }
}

#[test]
fn each_case_needs_exactly_its_grants() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../policies/cases");
    let mut cases = 0;
    for file in std::fs::read_dir(folder).unwrap() {
        let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
        let suite: Suite = serde_saphyr::from_str(&text).unwrap();
        suite.cases.iter().for_each(|case| case.run(&suite));
        cases += suite.cases.len();
    }
    assert!(cases > 50, "only {cases} cases were found");
}
