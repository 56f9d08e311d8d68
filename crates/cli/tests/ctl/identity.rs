//! Users, vhosts, permissions and definitions by command.

use super::*;

#[test]
fn a_user_is_made_given_permissions_and_taken_away() {
    let desk = Desk::open();
    let hint = "Adding user \"app\" ...\nDone. Don't forget to grant the user permissions to some virtual hosts! See \
                'rabbitmqctl help set_permissions' to learn more.\n";
    assert_eq!(desk.say("add_user app secret"), printed(hint));
    assert_eq!(desk.say("-q add_user app secret"), failed(70, "", "User \"app\" already exists\n"));
    assert_eq!(
        desk.say("set_permissions app .* ^w r"),
        printed("Setting permissions for user \"app\" in vhost \"/\" ...\n")
    );
    assert_eq!(desk.say("-q set_permissions nobody a b c"), failed(67, "", "User \"nobody\" does not exist\n"));
    assert_eq!(desk.say("-q -p nov set_permissions app a b c"), failed(65, "", "Virtual host 'nov' does not exist\n"));
    let listed = "user\tconfigure\twrite\tread\napp\t.*\t^w\tr\nguest\t.*\t.*\t.*\n";
    assert_eq!(desk.say("-q list_permissions"), printed(listed));
    assert_eq!(desk.say("-s list_user_permissions app"), printed("/\t.*\t^w\tr\n"));
    assert_eq!(
        desk.say("set_user_tags app administrator mine"),
        printed("Setting tags for user \"app\" to [administrator, mine] ...\n")
    );
    assert_eq!(desk.say("authenticate_user app secret"), printed("Authenticating user \"app\" ...\nSuccess\n"));
    assert_eq!(desk.say("-q authenticate_user app wrong").code, 65);
    assert_eq!(desk.say("-q change_password app other"), printed(""));
    assert_eq!(desk.say("-q authenticate_user app secret").code, 65);
    assert_eq!(desk.say("-s list_users"), printed("app\t[administrator, mine]\nguest\t[administrator]\n"));
    assert_eq!(desk.say("-q clear_password app"), printed(""));
    assert_eq!(desk.say("-q authenticate_user app other").code, 65);
    assert_eq!(desk.say("-q set_topic_permissions app amq.topic ^a .*"), printed(""));
    assert_eq!(desk.say("-s list_topic_permissions"), printed("app\tamq.topic\t^a\t.*\n"));
    assert_eq!(desk.say("-q clear_topic_permissions app"), printed(""));
    assert_eq!(desk.ctl(&["-q", "set_user_limits", "app", r#"{"max-channels":5}"#]), printed(""));
    assert_eq!(desk.say("-s list_user_limits"), printed("app\t{\"max-channels\":5}\n"));
    assert_eq!(desk.say("-q clear_user_limits app all"), printed(""));
    assert_eq!(desk.say("-q clear_permissions app"), printed(""));
    assert_eq!(desk.say("delete_user app"), printed("Deleting user \"app\" ...\n"));
    assert_eq!(desk.say("-q delete_user app"), failed(67, "", "User \"app\" does not exist\n"));
}

#[test]
fn a_vhost_is_made_limited_and_taken_away() {
    let desk = Desk::open();
    assert_eq!(
        desk.say("add_vhost v --description D --tags a,b --default-queue-type quorum"),
        printed("Adding vhost \"v\" ...\n")
    );
    assert_eq!(
        desk.say("-s list_vhosts name description default_queue_type"),
        printed("/\tDefault virtual host\tclassic\nv\tD\tquorum\n")
    );
    let (starts, stops) = ("Starting tracing for vhost \"v\" ...\n", "Stopping tracing for vhost \"v\" ...\n");
    assert_eq!(desk.say("-p v trace_on"), printed(&format!("{starts}Trace enabled for vhost v\n")));
    assert_eq!(desk.say("-s list_vhosts name tracing"), printed("/\tfalse\nv\ttrue\n"));
    assert_eq!(desk.say("-p v trace_off"), printed(&format!("{stops}Trace disabled for vhost v\n")));
    assert_eq!(desk.say("-s list_vhosts name tracing"), printed("/\tfalse\nv\tfalse\n"));
    assert_eq!(desk.say("-q update_vhost_metadata v --description E"), printed(""));
    assert_eq!(desk.say("-s list_vhosts description"), printed("Default virtual host\nE\n"));
    assert_eq!(desk.ctl(&["-q", "-p", "v", "set_vhost_limits", r#"{"max-queues":3}"#]), printed(""));
    assert_eq!(desk.say("-s -p v list_vhost_limits"), printed("v\t{\"max-queues\":3}\n"));
    assert_eq!(desk.say("-q -p v clear_vhost_limits"), printed(""));
    assert_eq!(desk.say("-s -p v list_vhost_limits"), printed(""));
    assert_eq!(desk.say("delete_vhost v"), printed("Deleting vhost \"v\" ...\n"));
    assert_eq!(desk.say("-q delete_vhost v"), failed(65, "", "Virtual host 'v' does not exist\n"));
}

#[test]
fn definitions_go_to_a_file_and_come_from_one() {
    let desk = Desk::open();
    desk.say("-q add_vhost v");
    assert_eq!(desk.ctl(&["-q", "-p", "v", "set_parameter", "shovel", "s", r#"{"a":1}"#]), printed(""));
    assert_eq!(desk.ctl(&["-q", "set_global_parameter", "g", "5"]), printed(""));
    let file = desk.directory.path().join("definitions.json");
    let file = file.to_str().unwrap();
    let said = format!("Exporting definitions in JSON to a file at \"{file}\" ...\n");
    assert_eq!(desk.ctl(&["export_definitions", file]), printed(&said));
    desk.say("-q delete_vhost v");
    desk.say("-q clear_global_parameter g");
    assert_eq!(desk.ctl(&["-q", "import_definitions", file]), printed(""));
    assert_eq!(desk.say("-s -p v list_parameters"), printed("shovel\ts\t{\"a\":1}\n"));
    assert_eq!(desk.say("-s list_global_parameters"), printed("g\t5\n"));
    assert!(desk.say("export_definitions -").out.starts_with("{\n"));
}

#[test]
fn definitions_that_are_the_same_are_skipped_if_asked() {
    let desk = Desk::open();
    let file = desk.directory.path().join("definitions.json");
    std::fs::write(&file, r#"{"global_parameters": [{"name": "g", "value": 5}]}"#).unwrap();
    let import = || desk.ctl(&["-q", "import_definitions", "--skip-if-unchanged", file.to_str().unwrap()]);
    assert_eq!(import(), printed(""));
    desk.say("-q clear_global_parameter g");
    assert_eq!(import(), printed(""));
    assert!(!desk.say("-s list_global_parameters").out.contains("g\t5"), "it was not imported again");
}

#[test]
fn who_changed_what_is_listed_the_newest_first() {
    let desk = Desk::open();
    desk.say("-q add_vhost v");
    desk.say("-q add_user app s3cret");
    let listed = desk.say("-s list_audit user peer what outcome");
    let app = "local-operator\tlocal\tPUT /api/users/app\tdone\n";
    assert_eq!(listed, printed(&format!("{app}local-operator\tlocal\tPUT /api/vhosts/v\tdone\n")));
    assert!(desk.say("list_audit").out.starts_with("Listing changes, the newest first ...\ntime\tuser\tpeer\twhat"));
}
