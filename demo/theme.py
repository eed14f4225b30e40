"""Colours, type and corners of the page, light and dark; the style sheet uses what is named here.

System fonts only: a theme of Gradio's would ask another host for its own.
"""

import gradio as gr
from gradio.themes.utils import colors, sizes

FONT = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "sans-serif")
FONT_MONO = ("ui-monospace", "SF Mono", "Menlo", "Consolas", "monospace")

INK, INK_DARK = "#18212b", "#e6ebef"
MUTED, MUTED_DARK = "#586472", "#9ba8b4"
GROUND, GROUND_DARK = "#eef1f3", "#0f1317"
SURFACE, SURFACE_DARK = "#ffffff", "#181e24"
RAISED, RAISED_DARK = "#f6f8f9", "#1f272e"
RULE, RULE_DARK = "#d9e0e5", "#2c363f"
ACCENT, ACCENT_DARK = "#0b7261", "#56d1b0"
ACCENT_STRONG, ACCENT_STRONG_DARK = "#085c4e", "#7be0c6"
ACCENT_SOFT, ACCENT_SOFT_DARK = "#e1f1ec", "#153a33"
ON_ACCENT, ON_ACCENT_DARK = "#ffffff", "#06231d"
WAVE, WAVE_PLAYED = "#9fb0b8", "#1f9e88"  # the player has one colour for light and dark
PROBLEM, PROBLEM_DARK = "#a3261d", "#ffb4a8"
PROBLEM_SOFT, PROBLEM_SOFT_DARK = "#fdecea", "#3d1d1a"


def make_theme() -> gr.themes.Base:
    """The theme to launch the page with."""
    theme = gr.themes.Base(
        primary_hue=colors.teal,
        secondary_hue=colors.teal,
        neutral_hue=colors.slate,
        radius_size=sizes.radius_lg,
        text_size=sizes.text_md,
        font=FONT,
        font_mono=FONT_MONO,
    )
    # Gradio knows one accent for both modes; on a dark ground it would be too dim to read.
    theme.custom_css = f":root.dark, :root .dark {{ --color-accent: {ACCENT_DARK}; }}"
    return theme.set(
        body_background_fill=GROUND,
        body_background_fill_dark=GROUND_DARK,
        body_text_color=INK,
        body_text_color_dark=INK_DARK,
        body_text_color_subdued=MUTED,
        body_text_color_subdued_dark=MUTED_DARK,
        background_fill_primary=SURFACE,
        background_fill_primary_dark=SURFACE_DARK,
        background_fill_secondary=RAISED,
        background_fill_secondary_dark=RAISED_DARK,
        border_color_primary=RULE,
        border_color_primary_dark=RULE_DARK,
        border_color_accent=ACCENT,
        border_color_accent_dark=ACCENT_DARK,
        color_accent=ACCENT,
        color_accent_soft=ACCENT_SOFT,
        color_accent_soft_dark=ACCENT_SOFT_DARK,
        block_background_fill=SURFACE,
        block_background_fill_dark=SURFACE_DARK,
        block_border_width="0px",
        block_border_width_dark="0px",
        block_shadow="none",
        block_title_text_weight="600",
        block_label_background_fill="transparent",
        block_label_background_fill_dark="transparent",
        input_background_fill=SURFACE,
        input_background_fill_dark=RAISED_DARK,
        input_border_color=RULE,
        input_border_color_dark=RULE_DARK,
        input_border_color_focus=ACCENT,
        input_border_color_focus_dark=ACCENT_DARK,
        input_placeholder_color=MUTED,
        input_placeholder_color_dark=MUTED_DARK,
        button_primary_background_fill=ACCENT,
        button_primary_background_fill_dark=ACCENT_DARK,
        button_primary_background_fill_hover=ACCENT_STRONG,
        button_primary_background_fill_hover_dark=ACCENT_STRONG_DARK,
        button_primary_text_color=ON_ACCENT,
        button_primary_text_color_dark=ON_ACCENT_DARK,
        button_secondary_background_fill=RAISED,
        button_secondary_background_fill_dark=RAISED_DARK,
        button_secondary_background_fill_hover=ACCENT_SOFT,
        button_secondary_background_fill_hover_dark=ACCENT_SOFT_DARK,
        button_secondary_text_color=INK,
        button_secondary_text_color_dark=INK_DARK,
        slider_color=ACCENT,
        slider_color_dark=ACCENT_DARK,
        link_text_color=ACCENT,
        link_text_color_dark=ACCENT_DARK,
        error_text_color=PROBLEM,
        error_text_color_dark=PROBLEM_DARK,
        error_background_fill=PROBLEM_SOFT,
        error_background_fill_dark=PROBLEM_SOFT_DARK,
    )
