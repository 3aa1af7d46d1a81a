package desktop

import (
	"bytes"
	"fmt"
	"net/url"
	"path"
	"strings"

	"github.com/godbus/dbus/v5"
	"github.com/godbus/dbus/v5/introspect"

	"vix/internal/plain"
)

// docString is the annotation under which an introspection has its documentation;
// docs/dbus.md is made of it.
const docString = "org.gtk.GDBus.DocString"

func doc(text string) []introspect.Annotation {
	return []introspect.Annotation{{Name: docString, Value: text}}
}

func in(name, kind string) introspect.Arg {
	return introspect.Arg{Name: name, Type: kind, Direction: "in"}
}
func out(name, kind string) introspect.Arg {
	return introspect.Arg{Name: name, Type: kind, Direction: "out"}
}

// managerNode describes the manager's object.
func managerNode() introspect.Node {
	return introspect.Node{Interfaces: []introspect.Interface{introspect.IntrospectData, introspectProperties, {
		Name:        managerInterface,
		Annotations: doc("The VMs of this user. Whoever calls is of the same user, or gets dev.vix.Error.Denied."),
		Methods: []introspect.Method{
			{Name: "List", Args: []introspect.Arg{out("vms", "aa{sv}")},
				Annotations: doc("The VMs that run. Keys: name, state (starting, running, not answering, stopping or unresponsive), tag, color, root, programs (s, s, s, s, s, as), memory in bytes (t), cpus and windows, their number (u), started in seconds since 1970 (x).")},
			{Name: "Run", Args: []introspect.Arg{in("vm", "s"), in("argv", "as"), in("options", "a{sv}")},
				Annotations: doc("Runs a program in a VM, which is started if it does not run, and returns when it runs: that can take longer than most callers wait if they are not told otherwise. Options: activation-token (s), disposable (b): in a new VM, which keeps nothing. The program does not end with the caller, nor with this service.")},
			{Name: "Stop", Args: []introspect.Arg{in("vm", "s"), in("force", "b")},
				Annotations: doc("Ends a VM, and returns when it is gone.")},
			{Name: "Watch", Annotations: doc("Keeps the service, and with it its signals, as long as the caller is on the bus. Without it the service leaves when nobody calls for a while; any call starts it again.")},
			{Name: "Reload", Annotations: doc("Takes the names of the desktop entries that exist now. \"vix desktop sync\" calls it.")},
		},
		Signals: []introspect.Signal{
			{Name: "VMChanged", Args: []introspect.Arg{{Name: "vm", Type: "s"}, {Name: "state", Type: "s"}, {Name: "now", Type: "a{sv}"}},
				Annotations: doc("A VM has appeared, or something of it that List tells has changed.")},
			{Name: "VMEnded", Args: []introspect.Arg{{Name: "vm", Type: "s"}}, Annotations: doc("A VM is gone.")},
		},
		Properties: []introspect.Property{
			{Name: "Version", Type: "s", Access: "read", Annotations: doc("Of Vix.")},
			{Name: "VMs", Type: "as", Access: "read", Annotations: doc("The names of the VMs that run; PropertiesChanged tells when they change.")},
		},
	}}}
}

// introspectProperties is org.freedesktop.DBus.Properties, as the specification has it.
var introspectProperties = introspect.Interface{
	Name: propsInterface,
	Methods: []introspect.Method{
		{Name: "Get", Args: []introspect.Arg{in("interface", "s"), in("property", "s"), out("value", "v")}},
		{Name: "GetAll", Args: []introspect.Arg{in("interface", "s"), out("props", "a{sv}")}},
		{Name: "Set", Args: []introspect.Arg{in("interface", "s"), in("property", "s"), in("value", "v")}},
	},
	Signals: []introspect.Signal{{Name: "PropertiesChanged", Args: []introspect.Arg{
		{Name: "interface", Type: "s"}, {Name: "changed_properties", Type: "a{sv}"}, {Name: "invalidated_properties", Type: "as"},
	}}},
}

// appNode describes the object of a desktop entry.
func appNode() introspect.Node {
	platform := in("platform_data", "a{sv}")
	return introspect.Node{Interfaces: []introspect.Interface{introspect.IntrospectData, {
		Name: appInterface,
		Annotations: doc("A desktop entry's program (Desktop Entry Specification, \"D-Bus Activation\"), under the entry's name and at its path. " +
			"Each method answers at once; a notification tells how the start goes on. platform_data: activation-token or desktop-startup-id (s)."),
		Methods: []introspect.Method{
			{Name: "Activate", Args: []introspect.Arg{platform}, Annotations: doc("Runs the program in its VM.")},
			{Name: "Open", Args: []introspect.Arg{in("uris", "as"), platform},
				Annotations: doc("Runs it with files, file: URIs of the host. The program sees these files alone, read-only.")},
			{Name: "ActivateAction", Args: []introspect.Arg{in("action_name", "s"), in("parameter", "av"), platform},
				Annotations: doc("disposable: the program in a new VM that keeps nothing. shell: a terminal in the VM. stop: ends the VM.")},
		},
	}}}
}

func (s *Service) introspectable(at dbus.ObjectPath, n introspect.Node) error {
	xml := string(introspect.NewIntrospectable(&n))
	return s.Conn.ExportMethodTable(map[string]any{
		"Introspect": func(sender dbus.Sender) (string, *dbus.Error) {
			defer s.enter()()
			if err := s.allow(sender); err != nil {
				return "", err
			}
			return xml, nil
		},
	}, at, inspectInterface)
}

// errorDocs are the typed errors.
var errorDocs = [][2]string{
	{"Denied", "the caller is not a process of this user"},
	{"InvalidArgs", "a name, a program, a file or an option that cannot be"},
	{"NotFound", "no such desktop entry"},
	{"NotRunning", "the VM does not run"},
	{"ProgramNotFound", "the VM has no such program"},
	{"ProgramNotExecutable", "the VM has it, and cannot execute it"},
	{"Failed", "everything else; the message says what, and what to do"},
}

// Reference returns docs/dbus.md, made from the service's introspection.
func Reference() string {
	var b bytes.Buffer
	fmt.Fprintf(&b, `# The D-Bus service

<!-- Made from the service's introspection by go test ./internal/desktop -run TestReference -update. -->

%s, on the session bus, is started by the bus when it is called, and leaves when nobody needs it. It holds no
state: VMs belong to their supervisors, and live on when it ends.

    gdbus call --session --dest %s --object-path %s --method %s.List
    busctl --user introspect %s %s
`, "`"+BusName+"`", BusName, managerPath, managerInterface, BusName, managerPath)
	document(&b, "`"+string(managerPath)+"`", managerNode())
	document(&b, "`/dev/vix/VM/APP`, of the name `dev.vix.VM.APP`", appNode())
	b.WriteString(`
VM and APP are a VM's name and the id of a desktop file in it, of which every byte that is neither a letter nor a digit is escaped,
as _ and two hexadecimal digits, and a digit that an element begins with too; the dots of an id stay. So no two VMs and programs have one name or one
path: ` + "`org.gnome.Maps` of the VM `my-vm` is `" + EntryName("my-vm", "org.gnome.Maps") + "`, at `" + string(objectPath(EntryName("my-vm", "org.gnome.Maps"))) + "`" + `.
`)
	b.WriteString("\n## Errors\n\n| error | means |\n|---|---|\n")
	for _, e := range errorDocs {
		fmt.Fprintf(&b, "| `%s%s` | %s |\n", errorPrefix, e[0], e[1])
	}
	return b.String()
}

func document(b *bytes.Buffer, title string, n introspect.Node) {
	for _, i := range n.Interfaces {
		if len(i.Annotations) == 0 {
			continue // a standard one
		}
		fmt.Fprintf(b, "\n## %s: `%s`\n\n%s\n\n| member | does |\n|---|---|\n", title, i.Name, i.Annotations[0].Value)
		for _, m := range i.Methods {
			fmt.Fprintf(b, "| method `%s(%s)` | %s |\n", m.Name, arguments(m.Args), m.Annotations[0].Value)
		}
		for _, m := range i.Signals {
			fmt.Fprintf(b, "| signal `%s(%s)` | %s |\n", m.Name, arguments(m.Args), m.Annotations[0].Value)
		}
		for _, p := range i.Properties {
			fmt.Fprintf(b, "| property `%s` (`%s`, %s) | %s |\n", p.Name, p.Type, p.Access, p.Annotations[0].Value)
		}
	}
}

func arguments(args []introspect.Arg) string {
	var words []string
	for _, a := range args {
		w := a.Name + " " + a.Type
		if a.Direction == "out" {
			w = "→ " + w
		}
		words = append(words, w)
	}
	return strings.Join(words, ", ")
}

// LocalPath is the file of a file: URI, or of a path.
func LocalPath(uri string) (string, error) {
	if path.IsAbs(uri) {
		return uri, nil
	}
	u, err := url.Parse(uri)
	if err != nil || u.Scheme != "file" || u.Host != "" && u.Host != "localhost" || !path.IsAbs(u.Path) {
		return "", fmt.Errorf("%q: not a file of this machine", plain.Text(uri, maxComment, plain.OneLine))
	}
	return u.Path, nil
}
