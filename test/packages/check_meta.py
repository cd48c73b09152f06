#!/usr/bin/python3
"""Is the META.json of a zip what PGXN and its client take?

    check_meta.py ZIP

The types are pgxnclient's own; which keys there must be, and what their values
mean, is in the PGXN Meta Spec, version 1.0.0. Prints what is wrong.
"""
import sys
import zipfile

from pgxnclient import SemVer, archive
from pgxnclient.utils.strings import Term

LICENSES = ("agpl_3 apache_1_1 apache_2_0 artistic_1 artistic_2 bsd freebsd gfdl_1_2 gfdl_1_3 gpl_1 gpl_2 gpl_3"
            " lgpl_2_1 lgpl_3_0 mit mozilla_1_0 mozilla_1_1 openssl perl_5 postgresql qpl_1_0 ssleay sun zlib").split()
KEYS = ("abstract description generated_by license maintainer meta-spec name no_index prereqs provides"
        " release_status resources tags version").split()


def problems(filename):
    meta = archive.from_file(filename).get_meta()
    files = zipfile.ZipFile(filename).namelist()
    folder = "%s-%s/" % (meta["name"], meta["version"])

    Term(meta["name"])
    SemVer(meta["version"])
    for key in ("abstract", "maintainer", "license", "provides", "meta-spec"):
        if not meta[key]:
            yield "%s is empty" % key
    for key in meta:
        if key not in KEYS and not key.lower().startswith("x_"):
            yield "unknown key %s" % key
    if meta["license"] not in LICENSES:
        yield "unknown license %s" % meta["license"]
    if meta["release_status"] not in ("stable", "testing", "unstable"):
        yield "unknown release_status"
    if meta["meta-spec"]["version"] != "1.0.0":
        yield "another version of the spec"
    for tag in meta["tags"]:
        if not 0 < len(tag) < 256 or "/" in tag or "\\" in tag:
            yield "bad tag %s" % tag
    for phase, kinds in meta["prereqs"].items():
        if phase not in ("configure", "build", "test", "runtime", "develop"):
            yield "unknown phase %s" % phase
        for kind, needs in kinds.items():
            if kind not in ("requires", "recommends", "suggests", "conflicts"):
                yield "unknown kind %s" % kind
            for name, version in needs.items():
                Term(name)
                SemVer(version)
    if not all(name.startswith(folder) for name in files):
        yield "a file is not in %s" % folder
    for name, extension in meta["provides"].items():
        Term(name)
        SemVer(extension["version"])
        if extension["version"] != meta["version"]:
            yield "%s has another version than the distribution" % name
        for file in (extension["file"], extension["docfile"], name + ".control", "Makefile"):
            if folder + file not in files:
                yield "%s is not in the zip" % file
        control = folder + name + ".control"
        control = zipfile.ZipFile(filename).read(control).decode() if control in files else ""
        if "default_version = '%s'" % extension["version"].removesuffix(".0") not in control:
            yield "%s.control has another version" % name


found = list(problems(sys.argv[1]))
print("\n".join(found))
sys.exit(len(found) > 0)
