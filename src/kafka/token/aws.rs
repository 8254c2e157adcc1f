//! The credentials of AWS that this process has: from the environment, a profile, a web identity (IRSA), a
//! container (EKS Pod Identity, ECS) or the instance (IMDSv2), the first of them that there is.
//!
//! reqsign speaks the protocols; the files, the environment and HTTP are the bridge's own.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, Response, Uri};
use reqsign_aws_core::{
    AssumeRoleWithWebIdentityCredentialProvider, Credential, ECSCredentialProvider,
    EnvCredentialProvider, IMDSv2CredentialProvider, ProfileCredentialProvider,
};
use reqsign_core::{Context, Error, FileRead, HttpSend, ProvideCredential, StaticEnv};
use tokio::time::timeout;

use crate::config::{environment, read_file};
use crate::http::{self, Connector};

/// How long one source may take.
const SOURCE_TIMEOUT: Duration = Duration::from_secs(5);

/// The answers of all sources are much shorter.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// The variable with which AWS's own programs are told another endpoint of STS.
const STS_ENDPOINT: &str = "AWS_ENDPOINT_URL_STS";

/// # Errors
///
/// No source has credentials, or the first that could have some fails. Then the remaining sources are not tried: the
/// role of the instance must not stand in silently for that of the process.
pub fn credentials(region: &str) -> Result<Credential, String> {
    // The thread that asks may have a runtime, in which another cannot run.
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("aws-credentials".into());
        let thread = thread.spawn_scoped(scope, || find(region));
        let found = thread.map_err(|error| error.to_string())?.join();
        found.unwrap_or_else(|_| Err("the search for credentials of AWS failed".to_owned()))
    })
}

fn find(region: &str) -> Result<Credential, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    let found = runtime.block_on(first(region, environment()));
    // A name that is still being looked up is not waited for.
    runtime.shutdown_background();
    found
}

async fn first(region: &str, variables: HashMap<String, String>) -> Result<Credential, String> {
    let has = |name: &str| variables.get(name).is_some_and(|value| !value.is_empty());
    let in_container =
        has("AWS_CONTAINER_CREDENTIALS_FULL_URI") || has("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI");
    let home = variables.get("HOME").map(PathBuf::from);
    let send = Send { sts: variables.get(STS_ENDPOINT).cloned() };
    let context = Context::new()
        .with_file_read(Read)
        .with_http_send(send)
        .with_env(StaticEnv { home_dir: home, envs: variables.clone() });
    let context = &context;
    let web_identity = AssumeRoleWithWebIdentityCredentialProvider::new()
        .with_region(region.to_owned())
        .with_regional_sts_endpoint();
    let profile = ProfileCredentialProvider::new();
    let container = ECSCredentialProvider::new();
    let instance = IMDSv2CredentialProvider::new();
    let environment = EnvCredentialProvider::new();
    if let Some(found) = ask("the environment", environment.provide_credential(context)).await? {
        return Ok(found);
    }
    if let Some(found) = ask("the profile", profile.provide_credential(context)).await? {
        return Ok(found);
    }
    if let Some(found) = ask("the web identity", web_identity.provide_credential(context)).await? {
        return Ok(found);
    }
    if in_container
        && let Some(found) = ask("the container", container.provide_credential(context)).await?
    {
        return Ok(found);
    }
    if let Some(found) = ask("the instance", instance.provide_credential(context)).await? {
        return Ok(found);
    }
    Err("there are no credentials of AWS; give the pod, the task or the instance a role, or set \
         AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        .to_owned())
}

/// Asks one source, for some time.
async fn ask(
    source: &str,
    answer: impl Future<Output = reqsign_core::Result<Option<Credential>>>,
) -> Result<Option<Credential>, String> {
    match timeout(SOURCE_TIMEOUT, answer).await {
        Ok(Ok(found)) => Ok(found),
        Ok(Err(error)) => {
            let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
            let cause = cause.unwrap_or_default();
            Err(format!("{source} gives no credentials of AWS: {error}{cause}"))
        }
        Err(_elapsed) => Err(format!("{source} gives no credentials of AWS in time")),
    }
}

/// Reads files as the settings do.
#[derive(Debug)]
struct Read;

impl FileRead for Read {
    async fn file_read(&self, path: &str) -> reqsign_core::Result<Vec<u8>> {
        read_file("kafka.aws_msk_iam", Path::new(path))
            .map_err(|problem| Error::unexpected(problem.message))
    }
}

/// Sends requests as the bridge does.
#[derive(Debug)]
struct Send {
    sts: Option<String>,
}

impl HttpSend for Send {
    async fn http_send(&self, request: Request<Bytes>) -> reqsign_core::Result<Response<Bytes>> {
        let wrong = |error: http::BoxError| Error::unexpected(error.to_string());
        let mut request = request.map(Full::new);
        let is_sts = request.uri().host().is_some_and(|host| host.starts_with("sts."));
        if let Some(endpoint) = self.sts.as_ref().filter(|_| is_sts) {
            let uri: Result<Uri, _> = endpoint.parse();
            *request.uri_mut() =
                uri.map_err(|error| wrong(format!("{STS_ENDPOINT}: {error}").into()))?;
        }
        let connector = Connector::new(request.uri(), None).map_err(|error| wrong(error.into()))?;
        let (status, body) =
            http::fetch(&connector, request, ANSWER_BYTES_MAX).await.map_err(wrong)?;
        let mut answer = Response::new(body);
        *answer.status_mut() = status;
        Ok(answer)
    }
}
