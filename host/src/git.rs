//! (placeholder until merged)
#![expect(missing_docs, reason = "x")]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepoUrl(String);
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseRef(String);
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("bad url {0}")]
pub struct InvalidUrl(String);
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("bad ref {0}")]
pub struct InvalidRef(String);
#[derive(Debug, Clone)]
pub struct UrlPolicy {
    pub allow_file: bool,
}
impl RepoUrl {
    pub fn parse(t: &str, _p: &UrlPolicy) -> Result<Self, InvalidUrl> {
        if t.starts_with("https") {
            Ok(Self(t.into()))
        } else {
            Err(InvalidUrl(t.into()))
        }
    }
    pub fn stored(t: &str) -> Result<Self, InvalidUrl> {
        Ok(Self(t.into()))
    }
}
impl std::fmt::Display for RepoUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}
impl std::fmt::Display for BaseRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}
impl BaseRef {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
impl std::str::FromStr for BaseRef {
    type Err = InvalidRef;
    fn from_str(t: &str) -> Result<Self, InvalidRef> {
        Ok(Self(t.into()))
    }
}
