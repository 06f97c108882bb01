from CPS4SegmentationLib.panel import Panel


class ReviewPanel(Panel):
    ui_file = "ReviewPanel.ui"
