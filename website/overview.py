"""The page of all names: by what a reader does, with the sentence that says what each is for."""

from pages import import_place, module_notebooks, names_table, public_names, reference_page
from reference import groups


def overview(up: str = "../") -> str:
    """All groups as Markdown: a heading and a sentence each, and a table for each module with public names."""
    parts = []
    for group in groups(module_notebooks()):
        shown = [module for module in group.modules if public_names(module)]
        if shown:
            parts.append(f"## {group.title}\n\n{group.says}")
        for module in shown:
            parts.append(f"`from course_lib.{import_place(module)} import ...`")
            parts.append(names_table(module, up + reference_page(module)))
    return "\n\n".join(parts)
