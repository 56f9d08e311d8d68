//! Vhosts, users, permissions, limits, parameters and definitions.

use super::api::{Answer, Api, encoded};
use super::arguments::{Line, Options};
use super::commands::{Command, MONITORING, Run, done};
use super::failure::{self, Failure};
use super::{Screen, formats};
use serde_json::{Map, Value, json};
use std::fs;
use std::io::{self, Read as _, Write as _};

const ANY: usize = usize::MAX;
const USERS: &str = "Users";
const ACCESS: &str = "Access Control";
const VHOSTS: &str = "Virtual hosts";
const DEFINITIONS: &str = "Definitions";
const PARAMETERS: &str = "Parameters";

type Do = fn(&str, &Line, &mut Screen) -> Result<(), Failure>;

const fn command(
    section: &'static str,
    name: &'static str,
    about: &'static str,
    usage: &'static str,
    operands: (usize, usize),
    run: Do,
) -> Command {
    Command { name, section, about, usage, operands, options: &[], run: Run::Do(run) }
}

const fn with(options: &'static [&'static str], command: Command) -> Command {
    Command { options, ..command }
}

/// The commands of this file, in the order of the overview.
pub(super) const COMMANDS: &[Command] = &[
    with(
        &["pre-hashed-password"],
        command(
            USERS,
            "add_user",
            "Creates a new user",
            "<username> [<password>] [--pre-hashed-password]",
            (1, 2),
            add_user,
        ),
    ),
    command(
        USERS,
        "authenticate_user",
        "Attempts to authenticate a user; exits with a non-zero code if that fails",
        "<username> [<password>]",
        (1, 2),
        authenticate_user,
    ),
    with(
        &["pre-hashed-password"],
        command(
            USERS,
            "change_password",
            "Changes a user's password",
            "<username> [<password>] [--pre-hashed-password]",
            (1, 2),
            change_password,
        ),
    ),
    command(
        USERS,
        "clear_password",
        "Takes a user's password, so that they cannot log in",
        "<username>",
        (1, 1),
        clear_password,
    ),
    command(
        USERS,
        "clear_user_limits",
        "Clears a user's limits, or one of them",
        "<username> <limit_type> | all",
        (2, 2),
        clear_user_limits,
    ),
    command(USERS, "delete_user", "Removes a user, and closes their connections", "<username>", (1, 1), delete_user),
    command(USERS, "hash_password", "Hashes a password as RabbitMQ does", "[<password>]", (0, 1), hash_password),
    with(
        &["user", "global"],
        command(
            USERS,
            "list_user_limits",
            "Displays configured user limits",
            "[--user <username>] [--global]",
            (0, 0),
            list_user_limits,
        ),
    ),
    command(USERS, "list_users", "Lists user names and tags", "[--no-table-headers]", (0, 0), list_users),
    command(USERS, "set_user_limits", "Sets user limits", "<username> <definition>", (2, 2), set_user_limits),
    command(USERS, "set_user_tags", "Sets user tags", "<username> <tag> [...]", (1, ANY), set_user_tags),
    command(
        ACCESS,
        "clear_permissions",
        "Revokes a user's permissions in a vhost",
        "[--vhost <vhost>] <username>",
        (1, 1),
        clear_permissions,
    ),
    command(
        ACCESS,
        "clear_topic_permissions",
        "Clears a user's topic permissions in a vhost, or those for one exchange",
        "[--vhost <vhost>] <username> [<exchange>]",
        (1, 2),
        clear_topic_permissions,
    ),
    command(
        ACCESS,
        "list_permissions",
        "Lists user permissions in a virtual host",
        "[--vhost <vhost>] [--no-table-headers]",
        (0, 0),
        list_permissions,
    ),
    command(
        ACCESS,
        "list_topic_permissions",
        "Lists topic permissions in a virtual host",
        "[--vhost <vhost>] [--no-table-headers]",
        (0, 0),
        list_topic_permissions,
    ),
    command(
        ACCESS,
        "list_user_permissions",
        "Lists permissions of a user across all virtual hosts",
        "[--no-table-headers] <username>",
        (1, 1),
        list_user_permissions,
    ),
    command(
        ACCESS,
        "list_user_topic_permissions",
        "Lists topic permissions of a user",
        "[--no-table-headers] <username>",
        (1, 1),
        list_user_topic_permissions,
    ),
    command(
        ACCESS,
        "set_permissions",
        "Sets user permissions in a vhost",
        "[--vhost <vhost>] <username> <conf> <write> <read>",
        (4, 4),
        set_permissions,
    ),
    command(
        ACCESS,
        "set_topic_permissions",
        "Sets user topic permissions for an exchange",
        "[--vhost <vhost>] <username> <exchange> <write> <read>",
        (4, 4),
        set_topic_permissions,
    ),
    with(
        &["description", "tags", "default-queue-type"],
        command(
            VHOSTS,
            "add_vhost",
            "Creates a virtual host",
            "<vhost> [--description <description> --tags \"<tag1>,<tag2>,<...>\" --default-queue-type <quorum|classic|stream>]",
            (1, 1),
            add_vhost,
        ),
    ),
    command(
        VHOSTS,
        "clear_vhost_limits",
        "Clears virtual host limits",
        "[--vhost <vhost>]",
        (0, 0),
        clear_vhost_limits,
    ),
    command(VHOSTS, "delete_vhost", "Deletes a virtual host with everything in it", "<vhost>", (1, 1), delete_vhost),
    with(
        &["global"],
        command(
            VHOSTS,
            "list_vhost_limits",
            "Displays configured virtual host limits",
            "[--vhost <vhost>] [--global]",
            (0, 0),
            list_vhost_limits,
        ),
    ),
    command(
        VHOSTS,
        "set_vhost_limits",
        "Sets virtual host limits",
        "[--vhost <vhost>] <definition>",
        (1, 1),
        set_vhost_limits,
    ),
    with(
        &["vhost"],
        command(
            MONITORING,
            "trace_off",
            "Stops copying what passes in a virtual host to amq.rabbitmq.trace",
            "[-p <vhost>]",
            (0, 0),
            trace_off,
        ),
    ),
    with(
        &["vhost"],
        command(
            MONITORING,
            "trace_on",
            "Copies what is published and delivered in a virtual host to amq.rabbitmq.trace",
            "[-p <vhost>]",
            (0, 0),
            trace_on,
        ),
    ),
    command(VHOSTS, "set_vhost_tags", "Sets virtual host tags", "<vhost> <tag> [...]", (1, ANY), set_vhost_tags),
    with(
        &["description", "tags", "default-queue-type"],
        command(
            VHOSTS,
            "update_vhost_metadata",
            "Updates metadata (tags, description, default queue type) of a virtual host",
            "<vhost> [--description <description>] [--tags \"<tag1>,<tag2>,<...>\"] [--default-queue-type <quorum|classic|stream>]",
            (1, 1),
            update_vhost_metadata,
        ),
    ),
    with(
        &["format"],
        command(
            DEFINITIONS,
            "export_definitions",
            "Exports definitions in JSON",
            "<file | -> [--format json]",
            (1, 1),
            export_definitions,
        ),
    ),
    with(
        &["format", "skip-if-unchanged"],
        command(
            DEFINITIONS,
            "import_definitions",
            "Imports definitions in JSON",
            "[<file | ->] [--format json] [--skip-if-unchanged]",
            (0, 1),
            import_definitions,
        ),
    ),
    command(
        PARAMETERS,
        "clear_global_parameter",
        "Clears a global runtime parameter",
        "<name>",
        (1, 1),
        clear_global_parameter,
    ),
    command(
        PARAMETERS,
        "clear_parameter",
        "Clears a runtime parameter",
        "[--vhost <vhost>] <component_name> <name>",
        (2, 2),
        clear_parameter,
    ),
    command(
        PARAMETERS,
        "list_global_parameters",
        "Lists global runtime parameters",
        "[--no-table-headers]",
        (0, 0),
        list_global_parameters,
    ),
    command(
        PARAMETERS,
        "list_parameters",
        "Lists runtime parameters for a virtual host",
        "[--vhost <vhost>] [--no-table-headers]",
        (0, 0),
        list_parameters,
    ),
    command(
        PARAMETERS,
        "set_global_parameter",
        "Sets a global runtime parameter",
        "<name> <value>",
        (2, 2),
        set_global_parameter,
    ),
    command(
        PARAMETERS,
        "set_parameter",
        "Sets a runtime parameter",
        "[--vhost <vhost>] <component_name> <name> <value>",
        (3, 3),
        set_parameter,
    ),
];

/// A command at work: what it is about, and the way to the server.
struct Job<'a> {
    api: Api,
    options: &'a Options,
    screen: &'a mut Screen,
}

impl<'a> Job<'a> {
    /// Says what is being done, once the server is there.
    fn begin(name: &str, line: &'a Line, screen: &'a mut Screen, banner: &str) -> Result<Self, Failure> {
        let options = &line.options;
        let api = Api::new(name, options, None)?;
        api.reach()?;
        screen.banner(options, banner)?;
        Ok(Self { api, options, screen })
    }

    fn put(&self, path: &str, document: &Value) -> Result<Answer, Failure> {
        self.api.put(path, document)
    }

    fn delete(&self, path: &str) -> Result<Answer, Failure> {
        self.api.send("DELETE", path, &[])
    }

    /// What changes something ends so, where 404 means `missing`.
    fn end(self, answer: &Answer, missing: Failure) -> Result<(), Failure> {
        match answer.status {
            200..300 => done(&self.api, self.options, self.screen),
            404 => Err(missing),
            400 => Err(Failure::error(failure::UNAVAILABLE, answer.reason().trim_end())),
            _ => Err(Failure::error(failure::UNAVAILABLE, answer.reason())),
        }
    }

    /// The vhost is missing, or the user.
    fn end_in_vhost(self, answer: &Answer, user: &str) -> Result<(), Failure> {
        let vhost = self.options.vhost();
        let missing = match self.api.get(&format!("/vhosts/{}?columns=name", encoded(vhost)))? {
            None => Failure::no_vhost(vhost),
            Some(_) => no_user(user),
        };
        self.end(answer, missing)
    }

    /// Prints these fields of the objects there.
    fn list(self, path: &str, fields: &[(&str, &str)], missing: Failure) -> Result<(), Failure> {
        let Some(Value::Array(objects)) = self.api.get(path)? else { return Err(missing) };
        let names: Vec<_> = fields.iter().map(|(name, _)| *name).collect();
        let row = |object: &Value| fields.iter().map(|(_, field)| object[*field].clone()).collect();
        let rows: Vec<Vec<Value>> = objects.iter().map(row).collect();
        formats::print_rows(self.screen, self.options, &names, &rows)
    }
}

fn no_user(user: &str) -> Failure {
    Failure { code: failure::NO_USER, text: format!("User \"{user}\" does not exist") }
}

/// The operand, or what standard input says.
fn password(line: &Line, at: usize) -> Result<String, Failure> {
    if let Some(password) = line.operands.get(at) {
        return Ok(password.clone());
    }
    let mut text = String::new();
    let read = io::stdin().read_to_string(&mut text);
    read.map_err(|why| {
        Failure::error(failure::DATA, format!("Password could not be read from standard input: {why}"))
    })?;
    match text.trim_end_matches(['\r', '\n']) {
        "" => Err(Failure::error(failure::DATA, "Password is not provided via argument or standard input")),
        password => Ok(password.to_owned()),
    }
}

fn password_fields(line: &Line, password: &str) -> Map<String, Value> {
    let key = if line.options.has("pre-hashed-password") { "password_hash" } else { "password" };
    let mut fields = Map::from_iter([(key.to_owned(), password.into())]);
    // The second is the first in Base64, as definitions have it.
    if key == "password_hash" && (password.starts_with("$argon2id$") || password.starts_with("JGFyZ29uMmlkJ")) {
        fields.insert("hashing_algorithm".into(), "argon2id".into());
    }
    fields
}

fn user_path(user: &str) -> String {
    format!("/users/{}", encoded(user))
}

fn object(text: &str) -> Result<Map<String, Value>, Failure> {
    match serde_json::from_str(text) {
        Ok(Value::Object(object)) => Ok(object),
        _ => Err(Failure::error(failure::UNAVAILABLE, "JSON decoding error. The value is no JSON object")),
    }
}

// --- users --------------------------------------------------------------------------------------------------------

fn add_user(_program: &str, line: &Line, screen: &mut Screen) -> Result<(), Failure> {
    let user = &line.operands[0];
    let password = password(line, 1)?;
    let job = Job::begin("add_user", line, screen, &format!("Adding user \"{user}\" ..."))?;
    if password.is_empty() {
        return Err(Failure::error(failure::DATA, "user cannot have an empty password"));
    }
    if job.api.get(&user_path(user))?.is_some() {
        return Err(Failure { code: failure::SOFTWARE, text: format!("User \"{user}\" already exists") });
    }
    let mut document = password_fields(line, &password);
    document.insert("tags".into(), "".into());
    let answer = job.put(&user_path(user), &document.into())?;
    let options = job.options;
    if matches!(answer.status, 201 | 204) && !options.quiet && !options.silent && !options.formatter.is_for_machines() {
        return job.screen.line(
            "Done. Don't forget to grant the user permissions to some virtual hosts! See 'rabbitmqctl help \
             set_permissions' to learn more.",
        );
    }
    job.end(&answer, no_user(user))
}

fn delete_user(_program: &str, line: &Line, screen: &mut Screen) -> Result<(), Failure> {
    let user = &line.operands[0];
    let job = Job::begin("delete_user", line, screen, &format!("Deleting user \"{user}\" ..."))?;
    let answer = job.delete(&user_path(user))?;
    job.end(&answer, no_user(user))
}

/// Changes a user who is there, and leaves their tags as they are.
fn change_user(job: Job<'_>, user: &str, mut document: Map<String, Value>) -> Result<(), Failure> {
    let Some(found) = job.api.get(&user_path(user))? else { return Err(no_user(user)) };
    if !document.contains_key("tags") {
        document.insert("tags".into(), found["tags"].clone());
    }
    let answer = job.put(&user_path(user), &document.into())?;
    job.end(&answer, no_user(user))
}

fn change_password(_program: &str, line: &Line, screen: &mut Screen) -> Result<(), Failure> {
    let user = &line.operands[0];
    let password = password(line, 1)?;
    let job = Job::begin("change_password", line, screen, &format!("Changing password for user \"{user}\" ..."))?;
    change_user(job, user, password_fields(line, &password))
}

fn clear_password(_program: &str, line: &Line, screen: &mut Screen) -> Result<(), Failure> {
    let user = &line.operands[0];
    let job = Job::begin("clear_password", line, screen, &format!("Clearing password for user \"{user}\" ..."))?;
    change_user(job, user, Map::from_iter([("password".to_owned(), "".into())]))
}

fn set_user_tags(_program: &str, line: &Line, screen: &mut Screen) -> Result<(), Failure> {
    let (user, tags) = (&line.operands[0], &line.operands[1..]);
    let banner = format!("Setting tags for user \"{user}\" to [{}] ...", tags.join(", "));
    let job = Job::begin("set_user_tags", line, screen, &banner)?;
    let fields = [("tags".to_owned(), json!(tags)), ("keep_password".to_owned(), true.into())];
    change_user(job, user, Map::from_iter(fields))
}

fn authenticate_user(_program: &str, line: &Line, screen: &mut Screen) -> Result<(), Failure> {
    let user = &line.operands[0];
    let password = password(line, 1)?;
    let job = Job::begin("authenticate_user", line, screen, &format!("Authenticating user \"{user}\" ..."))?;
    let answer = job.api.post(&format!("{}/authenticate", user_path(user)), &json!({"password": password}))?;
    match answer.status {
        204 => formats::print_message(job.screen, job.options, "Success"),
        _ => Err(Failure::error(failure::DATA, format!("failed to authenticate user \"{user}\""))),
    }
}

fn list_users(_program: &str, line: &Line, screen: &mut Screen) -> Result<(), Failure> {
    let job = Job::begin("list_users", line, screen, "Listing users ...")?;
    job.list("/users", &[("user", "name"), ("tags", "tags")], Failure::no_object())
}

fn hash_password(_program: &str, line: &Line, screen: &mut Screen) -> Result<(), Failure> {
    let password = password(line, 0)?;
    let job = Job::begin("hash_password", line, screen, "Will hash password ...")?;
    let hash = job.api.get(&format!("/auth/hash_password/{}", encoded(&password)))?.unwrap_or_default();
    formats::print_message(job.screen, job.options, hash["ok"].as_str().unwrap_or_default())
}

// --- limits -------------------------------------------------------------------------------------------------------

/// Sets each limit of a definition at its own path.
fn set_limits(job: Job<'_>, path: &str, definition: &str, missing: Failure) -> Result<(), Failure> {
    let mut last = None;
    for (name, value) in object(definition)? {
        let answer = job.put(&format!("{path}/{}", encoded(&name)), &json!({"value": value}))?;
        if !matches!(answer.status, 200..300) {
            return job.end(&answer, missing);
        }
        last = Some(answer);
    }
    match last {
        Some(answer) => job.end(&answer, missing),
        None => done(&job.api, job.options, job.screen),
    }
}

fn clear_limits(job: Job<'_>, path: &str, limits: &[&str], missing: Failure) -> Result<(), Failure> {
    for limit in limits {
        let answer = job.delete(&format!("{path}/{}", encoded(limit)))?;
        if answer.status != 204 {
            return job.end(&answer, missing);
        }
    }
    done(&job.api, job.options, job.screen)
}

fn list_limits(job: Job<'_>, path: &str, key: &str, missing: Failure) -> Result<(), Failure> {
    let Some(Value::Array(objects)) = job.api.get(path)? else { return Err(missing) };
    let row = |object: &Value| vec![object[key].clone(), object["value"].to_string().into()];
    let rows: Vec<Vec<Value>> = objects.iter().map(row).collect();
    formats::print_rows(job.screen, job.options, &[key, "limits"], &rows)
}

fn set_user_limits(_program: &str, line: &Line, screen: &mut Screen) -> Result<(), Failure> {
    let (user, definition) = (&line.operands[0], &line.operands[1]);
    let banner = format!("Setting user limits to \"{definition}\" for user \"{user}\" ...");
    let job = Job::begin("set_user_limits", line, screen, &banner)?;
    set_limits(job, &format!("/user-limits/{}", encoded(user)), definition, no_user(user))
}

fn clear_user_limits(_program: &str, line: &Line, screen: &mut Screen) -> Result<(), Failure> {
    let (user, limit) = (&line.operands[0], line.operands[1].as_str());
    let job = Job::begin("clear_user_limits", line, screen, &format!("Clearing user \"{user}\" limits ..."))?;
    let limits = if limit == "all" { vec!["max-connections", "max-channels"] } else { vec![limit] };
    clear_limits(job, &format!("/user-limits/{}", encoded(user)), &limits, no_user(user))
}

fn list_user_limits(_program: &str, line: &Line, screen: &mut Screen) -> Result<(), Failure> {
    let user = line.options.all("user").last().unwrap_or("");
    let (banner, path) = match user {
        "" => ("Listing limits for all users ...".to_owned(), "/user-limits".to_owned()),
        user => (format!("Listing limits for user \"{user}\" ..."), format!("/user-limits/{}", encoded(user))),
    };
    list_limits(Job::begin("list_user_limits", line, screen, &banner)?, &path, "user", no_user(user))
}

fn set_vhost_limits(_program: &str, line: &Line, screen: &mut Screen) -> Result<(), Failure> {
    let (vhost, definition) = (line.options.vhost(), &line.operands[0]);
    let banner = format!("Setting vhost limits to \"{definition}\" for vhost \"{vhost}\" ...");
    let job = Job::begin("set_vhost_limits", line, screen, &banner)?;
    set_limits(job, &format!("/vhost-limits/{}", encoded(vhost)), definition, Failure::no_vhost(vhost))
}

fn clear_vhost_limits(_program: &str, line: &Line, screen: &mut Screen) -> Result<(), Failure> {
    let vhost = line.options.vhost();
    let job = Job::begin("clear_vhost_limits", line, screen, &format!("Clearing vhost \"{vhost}\" limits ..."))?;
    let path = format!("/vhost-limits/{}", encoded(vhost));
    clear_limits(job, &path, &["max-connections", "max-queues"], Failure::no_vhost(vhost))
}

fn list_vhost_limits(_program: &str, line: &Line, screen: &mut Screen) -> Result<(), Failure> {
    let (vhost, is_global) = (line.options.vhost(), line.options.global);
    let (banner, path) = match is_global {
        true => ("Listing limits for all vhosts ...".to_owned(), "/vhost-limits".to_owned()),
        false => (format!("Listing limits for vhost \"{vhost}\" ..."), format!("/vhost-limits/{}", encoded(vhost))),
    };
    list_limits(Job::begin("list_vhost_limits", line, screen, &banner)?, &path, "vhost", Failure::no_vhost(vhost))
}

// --- permissions --------------------------------------------------------------------------------------------------

fn permission_path(resource: &str, line: &Line) -> String {
    format!("/{resource}/{}/{}", encoded(line.options.vhost()), encoded(&line.operands[0]))
}

fn set_permissions(_program: &str, line: &Line, screen: &mut Screen) -> Result<(), Failure> {
    let [user, configure, write, read] = &line.operands[..] else { return Ok(()) };
    let banner = format!("Setting permissions for user \"{user}\" in vhost \"{}\" ...", line.options.vhost());
    let job = Job::begin("set_permissions", line, screen, &banner)?;
    let document = json!({"configure": configure, "write": write, "read": read});
    let answer = job.put(&permission_path("permissions", line), &document)?;
    job.end_in_vhost(&answer, user)
}

fn clear_permissions(_program: &str, line: &Line, screen: &mut Screen) -> Result<(), Failure> {
    let user = &line.operands[0];
    let banner = format!("Clearing permissions for user \"{user}\" in vhost \"{}\" ...", line.options.vhost());
    let job = Job::begin("clear_permissions", line, screen, &banner)?;
    let answer = job.delete(&permission_path("permissions", line))?;
    // What is not there need not be cleared.
    if answer.status == 404 && job.api.get(&user_path(user))?.is_some() {
        let vhost = job.options.vhost();
        return match job.api.get(&format!("/vhosts/{}?columns=name", encoded(vhost)))? {
            Some(_) => done(&job.api, job.options, job.screen),
            None => Err(Failure::no_vhost(vhost)),
        };
    }
    job.end(&answer, no_user(user))
}

fn list_permissions(_program: &str, line: &Line, screen: &mut Screen) -> Result<(), Failure> {
    let vhost = line.options.vhost();
    let banner = format!("Listing permissions for vhost \"{vhost}\" ...");
    let job = Job::begin("list_permissions", line, screen, &banner)?;
    let fields = [("user", "user"), ("configure", "configure"), ("write", "write"), ("read", "read")];
    job.list(&format!("/vhosts/{}/permissions", encoded(vhost)), &fields, Failure::no_vhost(vhost))
}

fn list_user_permissions(_program: &str, line: &Line, screen: &mut Screen) -> Result<(), Failure> {
    let user = &line.operands[0];
    let banner = format!("Listing permissions for user \"{user}\" ...");
    let job = Job::begin("list_user_permissions", line, screen, &banner)?;
    let fields = [("vhost", "vhost"), ("configure", "configure"), ("write", "write"), ("read", "read")];
    job.list(&format!("{}/permissions", user_path(user)), &fields, no_user(user))
}

fn set_topic_permissions(_program: &str, line: &Line, screen: &mut Screen) -> Result<(), Failure> {
    let [user, exchange, write, read] = &line.operands[..] else { return Ok(()) };
    let vhost = line.options.vhost();
    let banner = format!("Setting topic permissions on \"{exchange}\" for user \"{user}\" in vhost \"{vhost}\" ...");
    let job = Job::begin("set_topic_permissions", line, screen, &banner)?;
    let document = json!({"exchange": exchange, "write": write, "read": read});
    let answer = job.put(&permission_path("topic-permissions", line), &document)?;
    job.end_in_vhost(&answer, user)
}

fn clear_topic_permissions(_program: &str, line: &Line, screen: &mut Screen) -> Result<(), Failure> {
    let (user, vhost) = (&line.operands[0], line.options.vhost());
    let (on, within) = match line.operands.get(1) {
        Some(exchange) => (format!(" on \"{exchange}\""), format!("/{}", encoded(exchange))),
        None => (String::new(), String::new()),
    };
    let banner = format!("Clearing topic permissions{on} for user \"{user}\" in vhost \"{vhost}\" ...");
    let job = Job::begin("clear_topic_permissions", line, screen, &banner)?;
    let answer = job.delete(&(permission_path("topic-permissions", line) + &within))?;
    job.end_in_vhost(&answer, user)
}

fn list_topic_permissions(_program: &str, line: &Line, screen: &mut Screen) -> Result<(), Failure> {
    let vhost = line.options.vhost();
    let banner = format!("Listing topic permissions for vhost \"{vhost}\" ...");
    let job = Job::begin("list_topic_permissions", line, screen, &banner)?;
    let fields = [("user", "user"), ("exchange", "exchange"), ("write", "write"), ("read", "read")];
    job.list(&format!("/vhosts/{}/topic-permissions", encoded(vhost)), &fields, Failure::no_vhost(vhost))
}

fn list_user_topic_permissions(_program: &str, line: &Line, screen: &mut Screen) -> Result<(), Failure> {
    let user = &line.operands[0];
    let banner = format!("Listing topic permissions for user \"{user}\" ...");
    let job = Job::begin("list_user_topic_permissions", line, screen, &banner)?;
    let fields = [("vhost", "vhost"), ("exchange", "exchange"), ("write", "write"), ("read", "read")];
    job.list(&format!("{}/topic-permissions", user_path(user)), &fields, no_user(user))
}

// --- vhosts -------------------------------------------------------------------------------------------------------

fn vhost_path(vhost: &str) -> String {
    format!("/vhosts/{}", encoded(vhost))
}

/// What the options say of a vhost.
fn metadata(options: &Options) -> Value {
    let fields = [("description", "description"), ("tags", "tags"), ("default-queue-type", "default_queue_type")];
    let said = fields.iter().filter_map(|(option, key)| Some(((*key).to_owned(), options.all(option).last()?.into())));
    Value::Object(said.collect())
}

fn add_vhost(_program: &str, line: &Line, screen: &mut Screen) -> Result<(), Failure> {
    let vhost = &line.operands[0];
    let job = Job::begin("add_vhost", line, screen, &format!("Adding vhost \"{vhost}\" ..."))?;
    let answer = job.put(&vhost_path(vhost), &metadata(&line.options))?;
    job.end(&answer, Failure::no_vhost(vhost))
}

fn delete_vhost(_program: &str, line: &Line, screen: &mut Screen) -> Result<(), Failure> {
    let vhost = &line.operands[0];
    let job = Job::begin("delete_vhost", line, screen, &format!("Deleting vhost \"{vhost}\" ..."))?;
    let answer = job.delete(&vhost_path(vhost))?;
    job.end(&answer, Failure::no_vhost(vhost))
}

/// Changes a vhost that is there.
fn change_vhost(job: Job<'_>, vhost: &str, document: &Value) -> Result<(), Failure> {
    if job.api.get(&format!("{}?columns=name", vhost_path(vhost)))?.is_none() {
        return Err(Failure::no_vhost(vhost));
    }
    let answer = job.put(&vhost_path(vhost), document)?;
    job.end(&answer, Failure::no_vhost(vhost))
}

fn update_vhost_metadata(_program: &str, line: &Line, screen: &mut Screen) -> Result<(), Failure> {
    let vhost = &line.operands[0];
    let job =
        Job::begin("update_vhost_metadata", line, screen, &format!("Updating metadata of vhost \"{vhost}\" ..."))?;
    change_vhost(job, vhost, &metadata(&line.options))
}

fn set_vhost_tags(_program: &str, line: &Line, screen: &mut Screen) -> Result<(), Failure> {
    let (vhost, tags) = (&line.operands[0], &line.operands[1..]);
    let banner = format!("Setting tags for vhost \"{vhost}\" to [{}] ...", tags.join(", "));
    let job = Job::begin("set_vhost_tags", line, screen, &banner)?;
    change_vhost(job, vhost, &json!({"tags": tags}))
}

fn trace_on(_program: &str, line: &Line, screen: &mut Screen) -> Result<(), Failure> {
    let vhost = line.options.vhost();
    let job = Job::begin("trace_on", line, screen, &format!("Starting tracing for vhost \"{vhost}\" ..."))?;
    change_vhost(job, vhost, &json!({"tracing": true}))?;
    screen.line(&format!("Trace enabled for vhost {vhost}"))
}

fn trace_off(_program: &str, line: &Line, screen: &mut Screen) -> Result<(), Failure> {
    let vhost = line.options.vhost();
    let job = Job::begin("trace_off", line, screen, &format!("Stopping tracing for vhost \"{vhost}\" ..."))?;
    change_vhost(job, vhost, &json!({"tracing": false}))?;
    screen.line(&format!("Trace disabled for vhost {vhost}"))
}

// --- definitions --------------------------------------------------------------------------------------------------

fn check_format(options: &Options) -> Result<(), Failure> {
    match options.all("format").last() {
        None | Some("json" | "JSON") => Ok(()),
        Some(_) => Err(Failure::error(failure::USAGE, "The only format is json")),
    }
}

fn export_definitions(_program: &str, line: &Line, screen: &mut Screen) -> Result<(), Failure> {
    check_format(&line.options)?;
    let file = line.operands[0].as_str();
    let banner = match file {
        "-" => String::new(),
        file => format!("Exporting definitions in JSON to a file at \"{file}\" ..."),
    };
    let options = &line.options;
    let api = Api::new("export_definitions", options, None)?;
    api.reach()?;
    if !banner.is_empty() {
        screen.banner(options, &banner)?;
    }
    let document = api.get("/definitions")?.unwrap_or_default();
    let text = serde_json::to_string_pretty(&document).unwrap_or_default();
    if file == "-" {
        return screen.line(&text);
    }
    write_private(file, &text)
        .map_err(|why| Failure::error(failure::UNAVAILABLE, format!("cannot write {file}: {why}")))?;
    done(&api, options, screen)
}

/// There are hashes of passwords in it.
fn write_private(file: &str, text: &str) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(file)?;
    writeln!(file, "{text}")
}

fn import_definitions(_program: &str, line: &Line, screen: &mut Screen) -> Result<(), Failure> {
    check_format(&line.options)?;
    let file = line.operands.first().map_or("-", String::as_str);
    let banner = match file {
        "-" => "Importing definitions in JSON from standard input ...".to_owned(),
        file => format!("Importing definitions in JSON from a file at \"{file}\" ..."),
    };
    let job = Job::begin("import_definitions", line, screen, &banner)?;
    let mut text = String::new();
    let read = match file {
        "-" => io::stdin().read_to_string(&mut text).map(drop),
        file => fs::read_to_string(file).map(|read| text = read),
    };
    read.map_err(|why| Failure::error(failure::DATA, format!("cannot read {file}: {why}")))?;
    let Ok(document @ Value::Object(_)) = serde_json::from_str(&text) else {
        return Err(Failure::error(failure::DATA, "the definitions are no JSON object"));
    };
    let skips = line.options.has("skip-if-unchanged");
    let answer = job.api.post(if skips { "/definitions?skip_if_unchanged=true" } else { "/definitions" }, &document)?;
    job.end(&answer, Failure::no_object())
}

// --- parameters ---------------------------------------------------------------------------------------------------

fn parameter_value(text: &str) -> Result<Value, Failure> {
    serde_json::from_str(text).map_err(|_| Failure::error(failure::UNAVAILABLE, "JSON decoding error"))
}

fn parameter_path(line: &Line) -> String {
    let [component, name, ..] = &line.operands[..] else { return String::new() };
    format!("/parameters/{}/{}/{}", encoded(component), encoded(line.options.vhost()), encoded(name))
}

fn no_parameter() -> Failure {
    Failure::error(failure::UNAVAILABLE, "Parameter does not exist")
}

fn set_parameter(_program: &str, line: &Line, screen: &mut Screen) -> Result<(), Failure> {
    let [component, name, value] = &line.operands[..] else { return Ok(()) };
    let vhost = line.options.vhost();
    let banner = format!(
        "Setting runtime parameter \"{name}\" for component \"{component}\" to \"{value}\" in vhost \"{vhost}\" ..."
    );
    let job = Job::begin("set_parameter", line, screen, &banner)?;
    let answer = job.put(&parameter_path(line), &json!({"value": parameter_value(value)?}))?;
    job.end(&answer, Failure::no_vhost(vhost))
}

fn clear_parameter(_program: &str, line: &Line, screen: &mut Screen) -> Result<(), Failure> {
    let (component, name, vhost) = (&line.operands[0], &line.operands[1], line.options.vhost());
    let banner =
        format!("Clearing runtime parameter \"{name}\" for component \"{component}\" on vhost \"{vhost}\" ...");
    let job = Job::begin("clear_parameter", line, screen, &banner)?;
    let answer = job.delete(&parameter_path(line))?;
    job.end(&answer, no_parameter())
}

fn list_parameters(_program: &str, line: &Line, screen: &mut Screen) -> Result<(), Failure> {
    let vhost = line.options.vhost();
    let banner = format!("Listing runtime parameters for vhost \"{vhost}\" ...");
    let job = Job::begin("list_parameters", line, screen, &banner)?;
    let Some(Value::Array(objects)) = job.api.get("/parameters")? else { return Err(Failure::no_vhost(vhost)) };
    let its = objects.iter().filter(|object| object["vhost"] == vhost);
    let row =
        |object: &Value| vec![object["component"].clone(), object["name"].clone(), object["value"].to_string().into()];
    let rows: Vec<Vec<Value>> = its.map(row).collect();
    formats::print_rows(job.screen, job.options, &["component", "name", "value"], &rows)
}

fn set_global_parameter(_program: &str, line: &Line, screen: &mut Screen) -> Result<(), Failure> {
    let (name, value) = (&line.operands[0], &line.operands[1]);
    let banner = format!("Setting global runtime parameter \"{name}\" to \"{value}\" ...");
    let job = Job::begin("set_global_parameter", line, screen, &banner)?;
    let path = format!("/global-parameters/{}", encoded(name));
    let answer = job.put(&path, &json!({"value": parameter_value(value)?}))?;
    job.end(&answer, no_parameter())
}

fn clear_global_parameter(_program: &str, line: &Line, screen: &mut Screen) -> Result<(), Failure> {
    let name = &line.operands[0];
    let banner = format!("Clearing global runtime parameter \"{name}\" ...");
    let job = Job::begin("clear_global_parameter", line, screen, &banner)?;
    let answer = job.delete(&format!("/global-parameters/{}", encoded(name)))?;
    job.end(&answer, no_parameter())
}

fn list_global_parameters(_program: &str, line: &Line, screen: &mut Screen) -> Result<(), Failure> {
    let job = Job::begin("list_global_parameters", line, screen, "Listing global runtime parameters ...")?;
    let Some(Value::Array(objects)) = job.api.get("/global-parameters")? else { return Err(no_parameter()) };
    let row = |object: &Value| vec![object["name"].clone(), object["value"].to_string().into()];
    let rows: Vec<Vec<Value>> = objects.iter().map(row).collect();
    formats::print_rows(job.screen, job.options, &["name", "value"], &rows)
}
