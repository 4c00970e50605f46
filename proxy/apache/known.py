"""What counts as loaded, and which names exist, when a configuration asks (D8).

A configuration that asks for a module whose functions we have gets them. What isn't listed exists
if a LoadModule named it.
"""

# identifiers, without _module
_OWN = (
    "authz_core authz_host core env headers http lbmethod_bybusyness lbmethod_byrequests"
    " lbmethod_bytraffic log_config logio proxy proxy_balancer proxy_hcheck proxy_http"
    " proxy_wstunnel reqtimeout rewrite setenvif slotmem_shm so socache_shmcb ssl status unixd"
    " version watchdog"
).split()
# where the file isn't mod_NAME.c
_FILES = {
    "core": "core.c",
    "http": "http_core.c",
    "ldap": "util_ldap.c",
    "mpm_event": "event.c",
    "mpm_prefork": "prefork.c",
    "mpm_worker": "worker.c",
}
_NAMES = {file: name for name, file in _FILES.items()}


def module_names(name: str) -> frozenset[str]:
    """Both names by which IfModule knows a module: ``x_module`` and ``mod_x.c``."""
    if name.endswith("_module"):
        short = name.removesuffix("_module")
    elif name in _NAMES:
        short = _NAMES[name]
    else:
        short = name.removesuffix(".c").removeprefix("mod_")
    return frozenset({f"{short}_module", _FILES.get(short, f"mod_{short}.c")})


OWN_MODULES = frozenset().union(*(module_names(f"{name}_module") for name in _OWN))

# Sections, without those that may stand without an argument.
SECTIONS = frozenset(
    "authnprovideralias authzprovideralias directory directorymatch elseif files filesmatch if"
    " ifdefine ifdirective iffile ifmodule ifsection ifversion limit limitexcept location"
    " locationmatch macro proxy proxymatch virtualhost".split()
)
BARE_SECTIONS = frozenset("else requireall requireany requirenone".split())

DIRECTIVES = frozenset(
    "addtype alias allowencodedslashes allowoverride balancergrowth balancerinherit"
    " balancermember balancerpersist customlog define documentroot errordocument errorlog group"
    " header httpprotocoloptions include includeoptional keepalive keepalivetimeout"
    " limitrequestbody limitrequestfields limitrequestfieldsize limitrequestline listen loadmodule"
    " logformat loglevel maxkeepaliverequests mergeslashes options pidfile proxy100continue"
    " proxyaddheaders proxybadheader proxyerroroverride proxyhcexpr proxyhctemplate proxyhctpsize"
    " proxyiobuffersize proxymaxforwards proxypass proxypassinherit proxypassmatch"
    " proxypassreverse proxypassreversecookiedomain proxypassreversecookiepath proxypreservehost"
    " proxyrequests proxyset proxysourceaddress proxystatus proxytimeout proxyvia requestheader"
    " requestreadtimeout require rewritecond rewriteengine rewriterule serveradmin serveralias"
    " servername serverroot serversignature servertokens setenv setenvif setenvifnocase sethandler"
    " sslcertificatechainfile sslcertificatefile sslcertificatekeyfile sslciphersuite sslengine"
    " sslhonorcipherorder sslprotocol sslsessioncache sslusestapling sslverifyclient timeout"
    " traceenable undefine usecanonicalname user".split()
)
