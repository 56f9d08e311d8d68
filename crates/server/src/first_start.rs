//! What the configuration wants to be there when a server starts: on an empty data directory a first user and vhost, and
//! at each start what a file of definitions has.

use crate::config::FirstStart;
use crate::http::{self, Api};
use crate::passwords;
use broker::command::{CatalogAsk, Outcome, VhostId};
use broker::identity::{IdentityAsk, Permission};
use broker::policy::Pattern;
use std::sync::Arc;

/// Makes all that. `is_new`: the data directory was empty.
///
/// # Errors
/// A sentence for the operator.
pub(crate) async fn fill(api: &Arc<Api>, is_new: bool) -> Result<(), String> {
    let first = api.board().config().first.clone();
    if is_new {
        found(api, &first).await?;
    }
    if let Some(file) = first.definitions {
        http::load_definitions(api, &file).await.map_err(|why| {
            let file = file.display();
            format!(
                "the definitions in {file} cannot be imported: {why}; correct the file, or start without load_definitions"
            )
        })?;
    }
    Ok(())
}

/// The first vhost and user, in the place of `/` and `guest`.
async fn found(api: &Arc<Api>, first: &FirstStart) -> Result<(), String> {
    if (FirstStart { definitions: None, loopback_users: None, ..first.clone() }) == FirstStart::default() {
        return Ok(());
    }
    let user = first.user.clone().unwrap_or_else(|| "guest".to_owned());
    let password = match &first.password {
        Some(secret) => {
            let secret = secret.clone();
            let hashed = tokio::task::spawn_blocking(move || passwords::hashed(secret.reveal().as_bytes())).await;
            Some(Some(hashed.ok().and_then(Result::ok).ok_or("the system gives no random bytes")?))
        }
        None if user == "guest" => None,
        None => return Err(format!("default_user is {user:?} and there is no default_pass: set both")),
    };
    let [configure, write, read] = first.permissions.clone().unwrap_or_else(|| [".*"; 3].map(str::to_owned));
    let pattern =
        |source: String| Pattern::new(&source).map_err(|fault| format!("default_permissions: {}", fault.text));
    let (configure, write, read) = (pattern(configure)?, pattern(write)?, pattern(read)?);
    // The new ones first: whatever ends the start in between, somebody can log in.
    let vhost = first.vhost.clone().unwrap_or_else(|| "/".to_owned());
    if first.vhost.is_some() || first.queue_type.is_some() {
        let (description, tags, is_protected) = (None, None, None);
        let default_queue_type = first.queue_type.clone().map(Some);
        let name = vhost.clone();
        ask(api, IdentityAsk::PutVhost { name, description, tags, default_queue_type, is_protected }).await?;
    }
    let tags = first.tags.clone().or_else(|| (user != "guest").then(|| vec!["administrator".to_owned()]));
    ask(api, IdentityAsk::PutUser { name: user.clone(), password, tags, limits: None }).await?;
    let id = api.board().topology().vhost(&vhost).unwrap_or(VhostId(0));
    let permission = Permission { vhost: id, user: user.as_str().into(), configure, write, read };
    ask(api, IdentityAsk::SetPermission(Box::new(permission))).await?;
    if user != "guest" {
        ask(api, IdentityAsk::DeleteUser { name: "guest".to_owned() }).await?;
    }
    if vhost != "/" {
        ask(api, IdentityAsk::DeleteVhost { name: "/".to_owned() }).await?;
    }
    Ok(())
}

async fn ask(api: &Arc<Api>, wanted: IdentityAsk) -> Result<(), String> {
    let asked = api.board().operator().ask(VhostId(0), CatalogAsk::Identity(Box::new(wanted))).await;
    match asked {
        Ok(Outcome::Fault(fault)) => Err(format!("the first user and vhost cannot be made: {}", fault.text)),
        Ok(_) => Ok(()),
        Err(unanswered) => Err(unanswered.to_string()),
    }
}
