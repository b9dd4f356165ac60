"""From other tools' formats to pairs."""
