//! `GET /openapi.json`: what this face takes and answers, as OpenAPI 3.1.
//!
//! Paths, parameters and bodies stand at the handlers, and a route exists only with them. What holds of all is added here: how keys are
//! given, what each request needs one for, and how refusals look.

use std::sync::OnceLock;

use axum::http::{Method, header};
use axum::response::IntoResponse;
use utoipa::OpenApi;
use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::security::{
    ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme,
};
use utoipa::openapi::{
    ContentBuilder, HeaderBuilder, ObjectBuilder, Ref, RefOr, Response, ResponseBuilder, Type,
};

use super::error::Body;
use super::guard::Scope;
use super::input::NoParams;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Agenticore",
        description = "Jobs of coding agents: submit, follow, cancel; the pods that run them."
    ),
    components(schemas(Body<'_>))
)]
struct Document;

/// What the schemes of keys are called, each another place for the same key.
const BEARER: &str = "bearer";
const HEADER: &str = "header";
const QUERY: &str = "query";

/// A status that requests can be refused with, when, and whether that can be with this one.
type Refusal = (&'static str, &'static str, fn(&Asked<'_>) -> bool);

const REFUSALS: [Refusal; 8] = [
    (
        "400",
        "The id, a parameter or the body is not right.",
        |_| true,
    ),
    ("401", "The key is missing or wrong.", |asked| {
        asked.scope.is_some()
    }),
    (
        "403",
        "The key may not do that, or the server does not answer to this name or page.",
        |_| true,
    ),
    ("404", "There is no such job.", |asked| asked.names_a_job()),
    (
        "409",
        "The id fits several jobs, or the job's state does not allow it.",
        |asked| asked.names_a_job(),
    ),
    ("413", "The body is too large.", |asked| asked.has_body()),
    (
        "415",
        "The body is not declared as JSON, or is compressed.",
        |asked| asked.has_body(),
    ),
    (
        "429",
        "The key has made too many requests; Retry-After says when it may come again.",
        |asked| asked.scope.is_some(),
    ),
];

/// A request that the document describes.
struct Asked<'a> {
    path: &'a str,
    operation: &'a Operation,
    scope: Option<Scope>,
}

impl Asked<'_> {
    fn names_a_job(&self) -> bool {
        self.path.contains("{id}")
    }

    fn has_body(&self) -> bool {
        self.operation.request_body.is_some()
    }
}

/// The document.
#[utoipa::path(get, path = "/openapi.json", tag = "server", responses((status = 200, description = "This document.", body = Object)))]
pub(super) async fn document(_: NoParams) -> impl IntoResponse {
    static TEXT: OnceLock<String> = OnceLock::new();
    let text = TEXT.get_or_init(|| {
        let document = complete(super::routes().into_openapi());
        // Of texts, numbers and lists alone, which can always be written.
        serde_json::to_string(&document).unwrap_or_default()
    });
    ([(header::CONTENT_TYPE, "application/json")], text.as_str())
}

/// Adds what holds of all requests.
fn complete(paths: utoipa::openapi::OpenApi) -> utoipa::openapi::OpenApi {
    let mut document = Document::openapi();
    document.merge(paths);
    for (path, item) in &mut document.paths.paths {
        for (method, operation) in operations(item) {
            let scope = Scope::needed(&method, path);
            let refusals = refusals(&Asked {
                path,
                operation,
                scope,
            });
            for (status, refusal) in refusals {
                operation
                    .responses
                    .responses
                    .entry(status)
                    .or_insert(refusal);
            }
            operation.security = Some(keys(scope));
        }
    }
    let components = document.components.get_or_insert_default();
    let mut add = |name, scheme| components.add_security_scheme(name, scheme);
    let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer);
    add(BEARER, SecurityScheme::Http(bearer.build()));
    let header = ApiKey::Header(ApiKeyValue::new("X-API-Key"));
    add(HEADER, SecurityScheme::ApiKey(header));
    let query = ApiKey::Query(ApiKeyValue::new("api_key"));
    add(QUERY, SecurityScheme::ApiKey(query));
    document
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = (Method, &mut Operation)> {
    let all = [
        (Method::GET, &mut item.get),
        (Method::POST, &mut item.post),
        (Method::DELETE, &mut item.delete),
    ];
    all.into_iter()
        .filter_map(|(method, operation)| Some((method, operation.as_mut()?)))
}

/// Any one of the places for a key will do; what it must be allowed is named as a role.
fn keys(scope: Option<Scope>) -> Vec<SecurityRequirement> {
    let Some(scope) = scope else {
        return Vec::new();
    };
    [BEARER, HEADER, QUERY]
        .map(|name| SecurityRequirement::new(name, [scope.as_str()]))
        .into()
}

fn refusals(asked: &Asked<'_>) -> Vec<(String, RefOr<Response>)> {
    let of_this = REFUSALS.iter().filter(|(_, _, holds)| holds(asked));
    let mut all: Vec<(String, RefOr<Response>)> = of_this
        .map(|(status, when, _)| ((*status).to_owned(), refusal(when, *status == "429").into()))
        .collect();
    let failed = refusal("The server failed, or cannot do it now.", false);
    all.push(("default".to_owned(), failed.into()));
    all
}

fn refusal(when: &str, has_retry_after: bool) -> Response {
    let body = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem")));
    let refusal = ResponseBuilder::new()
        .description(when)
        .content("application/problem+json", body.build());
    if has_retry_after {
        let whole = ObjectBuilder::new().schema_type(Type::Integer);
        let seconds = HeaderBuilder::new()
            .description(Some("Seconds."))
            .schema(Some(whole));
        return refusal.header("Retry-After", seconds.build()).build();
    }
    refusal.build()
}
