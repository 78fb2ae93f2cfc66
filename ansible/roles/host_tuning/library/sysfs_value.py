#!/usr/bin/python
"""Writes a value to a file of sysfs, where it differs."""

from __future__ import absolute_import, division, print_function

__metaclass__ = type

DOCUMENTATION = r"""
module: sysfs_value
short_description: Writes a value to a file of sysfs, where it differs
description:
  - Writes in place, as sysfs wants it, and reads back what the kernel made of it.
options:
  path:
    description: The file.
    type: path
    required: true
  value:
    description: What it is to hold. Of a list of choices in the file, the one in brackets counts.
    type: str
    required: true
  at_least:
    description: Whether a larger number is as good.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Reserve huge pages
  sysfs_value:
    path: /sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages
    value: "64"
"""

RETURN = r"""
before:
  description: What the file held.
  type: str
  returned: always
"""

import re

from ansible.module_utils.basic import AnsibleModule


def read(path):
    with open(path, "r") as file:
        text = file.read().strip()
    chosen = re.search(r"\[([^\]]+)\]", text)
    return chosen.group(1) if chosen else text


def main():
    module = AnsibleModule(
        argument_spec=dict(
            path=dict(type="path", required=True),
            value=dict(type="str", required=True),
            at_least=dict(type="bool", default=False),
        ),
        supports_check_mode=True,
    )
    path, value = module.params["path"], module.params["value"]

    def is_right(found):
        if module.params["at_least"] and found.isdigit() and value.isdigit():
            return int(found) >= int(value)
        return found == value

    try:
        before = read(path)
        changed = not is_right(before)
        if changed and not module.check_mode:
            with open(path, "w") as file:
                file.write(value + "\n")
            after = read(path)
            if not is_right(after):
                module.fail_json(
                    msg="%s is %s after %s was written: the kernel refuses it" % (path, after, value),
                    before=before,
                )
    except (IOError, OSError) as error:
        module.fail_json(msg="%s: %s" % (path, error))
    module.exit_json(
        changed=changed,
        before=before,
        diff=dict(before=before + "\n", after=(value if changed else before) + "\n", before_header=path, after_header=path),
    )


if __name__ == "__main__":
    main()
